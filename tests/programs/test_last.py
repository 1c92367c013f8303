"""Nothing may follow a tick in its transaction: what comes after could fail when it dislikes the new seed."""

from solders.compute_budget import set_compute_unit_price
from solders.keypair import Keypair
from solders.system_program import TransferParams, transfer

from tests.programs.chain_harness import COORDINATOR, Run, commitment


def instruction(run: Run, name: str, member=None, **args):
    accounts = run.accounts if member is None else run.member_accounts(member)
    args = args if member is None else {"slot": member.slot} | args
    return COORDINATOR.instruction(name, accounts, **args)


def nothing(run: Run):
    """An instruction that changes nothing."""
    rich = run.chain.rich.pubkey()
    return transfer(TransferParams(from_pubkey=rich, to_pubkey=rich, lamports=0))


def test_tick_followed_by_anything_is_refused(live, refused):
    run, members = live
    for m in members[:2]:
        run.duty("ready", m)
    run.chain.pass_time(100)  # the warmup is over
    tick = instruction(run, "tick")
    ready = instruction(run, "ready", members[2])
    for after, *signers in ((nothing(run),), (tick,), (ready, members[2].hot_key)):
        with refused("TickNotLast"):
            run.chain.send([tick, after], *signers)
    assert run.state.phase == "Warmup"
    run.chain.send([set_compute_unit_price(1), nothing(run), tick])
    assert run.state.phase == "RoundTrain"


def test_duty_followed_by_anything_leaves_the_tick_to_the_next(live):
    run, members = live
    for m in members[:2]:
        run.duty("ready", m)
    run.chain.send([instruction(run, "ready", members[2]), nothing(run)], members[2].hot_key)
    assert run.state.phase == "Warmup"  # everybody is ready: due, and not made
    run.tick()
    state = run.state
    assert state.phase == "RoundTrain"
    first, *others = members
    for m in others:
        run.duty("commit", m, round=1, hash=commitment(m, 1))
    last = instruction(run, "commit", first, round=1, hash=commitment(first, 1))
    run.chain.send([last, nothing(run)], first.hot_key)
    state = run.state
    assert state.phase == "RoundTrain"
    assert state.open.committed == {m.slot for m in members}
    run.tick()
    assert run.state.next_round == state.next_round + 1


def test_several_duties_of_one_transaction_tick_at_its_end(live):
    run, members = live
    run.chain.send([instruction(run, "ready", m) for m in members], *(m.hot_key for m in members))
    assert run.state.phase == "RoundTrain"


def test_joins_that_start_the_epoch_tick_only_when_last(chain):
    run = Run(chain)
    run.start(init_min_clients=1)
    member = run.member()
    args = {
        "hot_key": member.hot_key.pubkey(),
        "p2p_key": member.p2p_key,
        "tier": 0,
        "weight": 1,
        "contact": "",
    }
    join = COORDINATOR.instruction("join", run.member_accounts(member), args=args)
    chain.send([join, nothing(run)], member.wallet)
    assert run.state.phase == "WaitingForMembers"
    run.tick()
    assert run.state.phase == "Warmup"


def test_duties_want_the_real_instructions_sysvar(live, refused):
    run, members = live
    accounts = run.member_accounts(members[0]) | {"instructions": Keypair().pubkey()}
    with refused("WrongInstructions"):
        run.chain.send(COORDINATOR.instruction("ready", accounts, slot=0), members[0].hot_key)
    with refused("WrongInstructions"):
        run.chain.send(COORDINATOR.instruction("tick", accounts))
