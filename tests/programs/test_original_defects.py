"""Defects of the original's coordinator, each by a scenario in which it would show.

Numbers out of range are in `test_huge_numbers.py`, money in `test_money.py`, seeds in `test_calls.py`.
"""

import hashlib

import pytest
from solders.keypair import Keypair
from solders.system_program import TransferParams, transfer

from tests.programs import stages
from tests.programs.chain_harness import PROGRAMS, Grant, Run, bitmap, config
from tests.programs.crafted import U64_MAX, header_offset, overwrite
from tests.programs.run_state_view import account_size
from tests.programs.stages import RATE


def lose_a_round(run: Run, dead, others) -> None:
    """Everybody but `dead` works for a round; the phases end by time."""
    state = run.state
    before = next((r for r in state.rounds if r.number == state.open.number - 1 and r.status == 2), None)
    for m in others:
        if before is not None and m.slot in before.witnesses:
            run.duty("witness", m, round=before.number, bitmap=bitmap(before.committed))
    for m in others:
        run.duty("commit", m, round=state.open.number, hash=hashlib.sha256(bytes([m.slot])).digest())
    assert dead.slot not in run.state.open.committed
    if run.state.open.number == state.open.number:
        run.chain.pass_time(60)
        run.tick()


def test_dead_member_gets_no_work_after_its_first_missed_round(chain):
    """#21: a kicked client kept receiving batches, and three were lost."""
    run, members = stages.training(chain, total_steps=20)
    dead, others = members[1], [members[0], members[2]]
    assert run.state.open.assigned == {0, 1, 2}
    lose_a_round(run, dead, others)
    while run.state.open.number == 1:
        run.chain.pass_time(30)
        run.tick()
    assert run.state.open.assigned == {0, 2}
    lose_a_round(run, dead, others)
    state = run.state
    assert state.open.assigned == {0, 2}
    # the lost samples were taken up again, before new ones
    assert any(r.num_fills for r in state.rounds)


def test_member_reconnects_within_the_epoch_with_the_same_keys(chain):
    """#25: a fixed identity could not come back before the next epoch."""
    run, members = stages.training(chain, total_steps=20)
    back = members[1]
    run.duty("leave", back)
    joined = run.join(back).event("Joined")
    assert (joined["slot"], joined["active"]) == (1, True)
    run.duty("ready", back)
    run.play_round([members[0], members[2]])
    assert 1 in run.state.open.assigned


def test_creation_is_resumed_where_it_stopped(chain):
    """#22: any piece may be written again, in any later session."""
    run = stages.created(chain)
    run.act("write_spec", offset=0, bytes=run.spec[:500])
    resumed = Run(chain, creator=run.creator, log=run.log)
    resumed.write_spec()
    resumed.act("seal_spec")
    resumed.act("configure", config=config())
    assert resumed.state.phase == "Paused"


def test_midlist_exit_shifts_nobody(chain):
    """A member in the middle leaves while rounds are in flight: commitments, votes and pay stay the others'."""
    run, members = stages.paying(chain, total_steps=20)
    for m in members:
        run.duty("ready", m)
    run.play_round(members)
    run.duty("leave", members[1])
    run.play_round([members[0], members[2]])
    assert run.state.open.assigned == {0, 2}
    first = next(r for r in run.state.rounds if r.number == 1)
    assert first.accepted == {0, 1, 2}  # what it committed still counts
    for _ in range(2):
        run.play_round([members[0], members[2]])
    earned = [slot.earned for slot in run.state.slots[:3]]
    assert [bytes(m.wallet.pubkey()) for m in members] == [slot.wallet for slot in run.state.slots[:3]]
    assert earned[0] == earned[2] > earned[1] == RATE // 3
    assert run.settle(members[1]).event("Settled")["moved"] == earned[1]


def test_no_witness_at_height_one(chain, refused):
    """Two rounds ago was a zeroed round there."""
    run, members = stages.training(chain)
    for number in (0, 1, 2**64 - 1):
        with refused("NotWitnessing"):
            run.duty("witness", members[0], round=number, bitmap=bytes(32))


def end_by_pause(run, members):
    run.act("set_paused", paused=True)
    return members


def end_by_departures(run, members):
    run.duty("leave", members[2])
    return members


def end_by_steps(run, members):
    return members


@pytest.mark.parametrize(
    ("end", "rules"),
    [
        (end_by_pause, {"total_steps": 20}),
        (end_by_departures, {"total_steps": 20, "min_clients": 3}),
        (end_by_steps, {"total_steps": 2}),
    ],
)
def test_no_trained_round_is_thrown_away(chain, end, rules):
    """The original discarded the last two rounds of an epoch; a pause forfeited the whole epoch's pay."""
    run, members = stages.paying(chain, **rules)
    for m in members:
        run.duty("ready", m)
    run.play_round(members)
    at_work = end(run, members)
    for _ in range(6):
        if run.state.phase == "RoundTrain":
            present = [m for m in at_work if run.state.slots[m.slot].status == 2]
            run.play_round(present)
            while run.state.phase == "RoundWitness":
                chain.pass_time(60)
                run.tick()
    state = run.state
    assert state.phase == "Cooldown"
    trained = [r for r in state.rounds if r.trained]
    assert len(trained) == state.step == 2
    assert all(r.accepted == r.committed != set() for r in trained)
    assert state.total_earned + state.pay_carry == 2 * RATE


def test_small_batch_gives_everybody_a_sample(chain):
    """With fewer samples than clients the idle ones were dropped."""
    run, members = stages.training(chain, global_batch_size_start=1, global_batch_size_end=1)
    assert run.state.open.samples == 3
    while run.state.phase == "RoundTrain":
        run.play_round(members)
    assert all(slot.status == 2 for slot in run.state.slots[:3])


def test_one_witness_is_no_quorum_of_three(chain):
    """In all-witness mode one attestation was enough."""
    run, members = stages.training(chain, total_steps=20)
    run.play_round(members)
    run.duty("witness", members[0], round=1, bitmap=bitmap({0}))
    for m in members:
        run.duty("commit", m, round=2, hash=b"\2" * 32)
    assert run.state.open.number == 2  # the attestations are waited for
    for _ in range(2):
        chain.pass_time(60)
        run.tick()
    closed = next(r for r in run.state.rounds if r.number == 1)
    assert (closed.status, closed.accepted) == (3, set())
    assert all(slot.missed == 0 for slot in run.state.slots)  # and nobody is charged for it


def test_last_writer_does_not_decide_the_checkpoint(chain, refused):
    """Any client could overwrite the recorded repository."""
    run, members = stages.cooldown(chain)
    uploader = run.state.uploader
    run.attest(members)
    for m in members:
        if m.slot != uploader:
            with refused("NotUploader"):
                run.duty("record_checkpoint", m, uri="hub://mine/now")
    run.duty("record_checkpoint", members[uploader], uri="hub://the/agreed")
    with refused("NotCooldown"):
        run.duty("record_checkpoint", members[uploader], uri="hub://mine/now")
    assert run.state.uri == b"hub://the/agreed"


def test_late_commit_of_an_earlier_epoch_is_refused(chain, refused):
    """Round numbers never restart, so an old commit cannot fit a new round."""
    run, members = stages.training(chain, total_steps=1000, epoch_time=1)
    old = run.state.open.number
    while run.state.phase == "RoundTrain":
        run.play_round(members)
    run.agree(members)
    assert run.state.phase == "Warmup"
    for m in members:
        run.duty("ready", m)
    state = run.state
    assert (state.epoch, state.phase) == (2, "RoundTrain")
    assert state.open.number > old
    for number in range(old, state.open.number):
        with refused("WrongRound"):
            run.duty("commit", members[0], round=number, hash=b"\1" * 32)
        with refused("NotWitnessing"):
            run.duty("witness", members[0], round=number, bitmap=bytes(32))


def test_departed_members_do_not_block_a_full_table(chain, refused):
    """The original never pruned its records: a run could run out of places for good."""
    run = Run(chain, capacity=3)
    run.create()
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config(total_steps=4))
    run.act("set_round_rate", rate=RATE)
    run.act("set_paused", paused=False)
    members = [run.member(tier) for tier in (0, 1, 1)]
    for m in members:
        run.join(m)
    run.play_epoch(members)
    for m in members:
        run.duty("leave", m)
    assert [slot.status for slot in run.state.slots] == [3, 3, 3]
    late = run.member()
    with refused("TableFull"):
        run.join(late)  # their pay is still in their slots, and the log is still folded
    chain.pass_time(60)
    run.tick()
    assert run.state.phase == "Finished"
    for m in members:
        assert run.settle(m).event("Settled")["freed"]
    assert all(slot.status == 0 for slot in run.state.slots)
    assert all(run.membership_of(m)["earned"] > 0 for m in members)


def test_settle_keeps_the_slot_while_a_round_names_it(chain):
    """Freed too early, the slot's next holder would inherit votes and pay of the round in flight."""
    run, members = stages.paying(chain, total_steps=20)
    for m in members:
        run.duty("ready", m)
    run.play_round(members)
    gone = members[1]
    run.duty("leave", gone)
    assert not run.settle(gone).event("Settled")["freed"]
    newcomer = run.member(1)
    run.join(newcomer)
    assert newcomer.slot == 3
    run.play_round([members[0], members[2]])
    assert run.state.slots[1].earned == RATE // 3  # round 1 closed after it left
    settled = run.settle(gone).event("Settled")
    assert (settled["moved"], settled["freed"]) == (RATE // 3, False)
    again = run.settle(gone).event("Settled")
    assert (again["moved"], again["freed"]) == (0, False)
    run.act("set_paused", paused=True)
    others = [members[0], members[2]]
    while run.state.phase == "RoundTrain":
        run.play_round(others)
    run.agree(others)
    assert run.state.phase == "Paused"
    last = run.settle(gone).event("Settled")
    assert last["freed"]
    assert run.membership_of(gone)["earned"] == last["earned"]


def test_rates_change_from_the_next_epoch_only(chain):
    run, members = stages.paying(chain, rate=99, total_steps=1000, epoch_time=1)
    for m in members:
        run.duty("ready", m)
    run.act("set_round_rate", rate=999_999)
    while run.state.phase == "RoundTrain":
        run.play_round(members)
    state = run.state
    assert (state.round_rate, state.next_round_rate) == (99, 999_999)
    first = state.step
    assert state.total_earned + state.pay_carry == 99 * first
    run.agree(members)
    run.play_epoch(members)
    state = run.state
    assert (state.epoch, state.round_rate) == (2, 999_999)
    assert state.total_earned + state.pay_carry == 99 * first + 999_999 * (state.step - first)


@pytest.mark.parametrize("word", ["slash", "verification_percent", "tie_breaker", "ejected", "collateral"])
def test_slash_rates_and_verifiers_are_absent(word):
    """The original had a slashing rate that nothing applied, and verifiers whose branches panicked."""
    for name in ("coordinator", "treasurer", "authorizer"):
        assert word not in (PROGRAMS / f"{name}.json").read_text().lower()


def test_seed_is_bound_to_the_log_and_a_slot_hash(chain):
    """It was a hash of time and slot alone: whoever sent the tick could choose it."""
    run, members = stages.warmup(chain)
    for m in members[1:]:
        run.duty("ready", m)
    newest = hashlib.sha256(str(chain.slot).encode()).digest()
    first = run.duty("ready", members[0]).event("RoundOpened")["seed"]
    assert first == hashlib.sha256(bytes(32) + run.state.history + newest).digest()
    for m in members[1:]:
        run.duty("commit", m, round=1, hash=b"\1" * 32)
    chain.pass_time(1)
    newest = hashlib.sha256(str(chain.slot).encode()).digest()
    second = run.duty("commit", members[0], round=1, hash=b"\1" * 32).event("RoundOpened")["seed"]
    assert second == hashlib.sha256(first + run.state.history + newest).digest()


def test_ids_cannot_be_squatted(chain):
    """The same id by another creator is another run, with another log, pool and authorization."""
    mint = chain.mint(chain.keypair())
    runs = [Run(chain, mint=mint) for _ in range(2)]
    for run in runs:
        run.create()
    assert len({r.key for r in runs}) == len({r.pool for r in runs}) == 2
    assert {r.account("Run", r.key)["run_id"] for r in runs} == {"llama-20m"}


def test_addresses_with_lamports_in_them_can_still_be_created(chain):
    """Anybody can send lamports to an address that is about to be used."""
    run = Run(chain, mint=chain.mint(chain.keypair()))
    run.join_authority = (authority := chain.keypair()).pubkey()
    member = run.member()
    grant = Grant(chain, authority, member.wallet)
    named = run.member_accounts(member)
    targets = [run.key, run.spec_key, run.pool, run.vault, grant.key]
    targets += [named["membership"], named["claim"], named["wallet_token"]]
    for target in targets:
        gift = TransferParams(from_pubkey=chain.rich.pubkey(), to_pubkey=target, lamports=1_000_000)
        chain.send(transfer(gift))
    run.create()
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config())
    run.act("set_paused", paused=False)
    grant.create()
    grant.set_active(True)
    member.authorization = grant.key
    run.join(member)
    run.claim(member)
    assert all(chain.data(target) for target in targets)


def test_overlong_version_is_refused_everywhere(chain, refused):
    """The original panicked."""
    long = {"min_client_version": "9" * 33}
    with refused("ClientVersionTooLong"):
        Run(chain).create(**long)
    with refused("ClientVersionTooLong"):
        Run(chain, mint=chain.mint(chain.keypair())).create(**long)
    values = {"name": "n", "description": "d", "join_authority": Keypair().pubkey()} | long
    for run in (stages.created(chain), stages.pooled(chain, chain.keypair())):
        with refused("ClientVersionTooLong"):
            run.act("set_metadata", **values)
        run.act("set_metadata", **values | {"min_client_version": "9" * 32})


def test_log_of_another_version_is_not_closed(chain, refused):
    """The original checked no version before it freed an account."""
    run = stages.created(chain)
    overwrite(chain, run.log.pubkey(), header_offset("version"), U64_MAX)
    with refused("WrongVersion"):
        run.act("close_run")
    overwrite(chain, run.log.pubkey(), header_offset("version"), (1).to_bytes(8, "little"))
    run.act("close_run")


def test_log_must_have_exactly_its_capacity(chain, refused):
    """A header that claims another capacity than the account's size is refused, not believed."""
    run, members = stages.warmup(chain)
    assert len(chain.data(run.log.pubkey())) == account_size(16)
    for capacity in (0, 15, 17, 256, 2**16 - 1):
        overwrite(chain, run.log.pubkey(), header_offset("capacity"), capacity.to_bytes(2, "little"))
        with refused("WrongSize"):
            run.duty("ready", members[0])
    overwrite(chain, run.log.pubkey(), header_offset("capacity"), (16).to_bytes(2, "little"))
    run.duty("ready", members[0])
