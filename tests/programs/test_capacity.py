"""Tables of every size: the first and the last slot do the same work, up to 256 members."""

import pytest

from tests.programs import stages
from tests.programs.chain_harness import Chain, Run, config
from tests.programs.run_state_view import account_size
from tests.programs.stages import RATE


def full_epoch(chain: Chain, capacity: int) -> None:
    """A full table trains an epoch of two rounds, is paid, settles and frees every slot."""
    run = Run(chain, capacity=capacity)
    run.create()
    run.write_spec()
    run.act("seal_spec")
    rules = {"init_min_clients": capacity, "total_steps": 2, "max_tier": 1}
    run.act("configure", config=config(**rules))
    run.act("set_round_rate", rate=RATE)
    run.act("set_paused", paused=False)
    members = [run.member(tier=min(i, 1)) for i in range(capacity)]
    for i, m in enumerate(members):
        assert run.state.phase == "WaitingForMembers"
        assert run.join(m).event("Joined")["slot"] == i
    with pytest.raises(Exception, match="TableFull"):
        run.join(run.member())
    run.play_epoch(members)
    state = run.state
    everybody = set(range(capacity))
    trained = [r for r in state.rounds if r.trained]
    assert [r.accepted for r in trained] == [everybody, everybody]
    assert all(len(r.witnesses) == min(capacity, 32) for r in trained)
    assert max(r.samples for r in trained) == max(8, capacity)
    assert state.total_earned + state.pay_carry == 2 * RATE
    assert len({slot.earned for slot in state.slots}) == 1
    chain.pass_time(60)
    run.tick()
    for m in members:
        run.duty("leave", m)
        assert run.settle(m).event("Settled")["freed"]
    assert all(slot.status == 0 for slot in run.state.slots)
    run.act("close_run")


@pytest.mark.parametrize("capacity", [1, 2, 16])
def test_full_table(chain, capacity):
    full_epoch(chain, capacity)


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [255, 256])
def test_large_full_table(chain, capacity):
    full_epoch(chain, capacity)


@pytest.mark.parametrize("capacity", [1, 2, 16, 255, 256])
def test_log_of_any_size_is_created_and_closed(chain, capacity):
    run = stages.created(chain, capacity=capacity)
    assert run.state.capacity == capacity
    assert len(chain.data(run.log.pubkey())) == account_size(capacity)
    run.act("configure", config=config(init_min_clients=capacity, min_clients=capacity))
    run.act("close_run")


@pytest.mark.parametrize("capacity", [1, 2, 16, 255, 256])
def test_rules_cannot_ask_for_more_members_than_fit(chain, refused, capacity):
    run = stages.created(chain, capacity=capacity)
    with refused("BadInitMinClients"):
        run.act("configure", config=config(init_min_clients=capacity + 1))


def test_slots_beyond_the_table_do_not_exist(chain, refused):
    run = stages.waiting(chain, init_min_clients=2)
    member = run.member()
    run.join(member)
    for slot in (16, 255, 256, 2**16 - 1):
        with refused("NoSuchSlot"):
            run.duty("leave", member, slot=slot)
    for slot in range(1, 16):
        with refused("WrongSigner"):
            run.duty("leave", member, slot=slot)
