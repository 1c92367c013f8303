"""Instructions that tick, called by another program or followed by another instruction: nobody can look at a new seed
and undo it. `test_last.py` has more on what follows.

The caller is `caller/`, a program that calls the one that it is given.
"""

from collections.abc import Callable

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.system_program import TransferParams, transfer

from tests.programs import stages
from tests.programs.calls import CALLER, UNDONE, install, through_caller
from tests.programs.chain_harness import COORDINATOR, INSTRUCTIONS, Chain, Refused, Run, bitmap, commitment
from tests.programs.crafted import place

Due = tuple[Run, Instruction, list[Keypair]]
"""A run, and an instruction that makes a transition due in it, with who signs."""


@pytest.fixture(scope="module")
def chain():
    """One chain for all: each test makes runs of its own."""
    chain = Chain()
    install(chain)
    return chain


def duty(run: Run, member: stages.Member, name: str, **args) -> Due:
    ix = COORDINATOR.instruction(name, run.member_accounts(member), slot=member.slot, **args)
    return run, ix, [member.hot_key]


def join(chain: Chain) -> Due:
    run = stages.waiting(chain, init_min_clients=1)
    member = run.member()
    return run, run.join_instruction(member), [member.wallet]


def ready(chain: Chain) -> Due:
    run, members = stages.warmup(chain)
    for m in members[1:]:
        run.duty("ready", m)
    return duty(run, members[0], "ready")


def commit(chain: Chain) -> Due:
    run, members = stages.training(chain)
    for m in members[1:]:
        run.duty("commit", m, round=1, hash=commitment(m, 1))
    return duty(run, members[0], "commit", round=1, hash=bytes(32))


def witness(chain: Chain) -> Due:
    run, members = stages.training(chain)
    run.play_round(members)
    for m in members:
        run.duty("commit", m, round=2, hash=commitment(m, 2))
    for m in members[1:]:
        run.duty("witness", m, round=1, bitmap=bitmap({0, 1, 2}))
    return duty(run, members[0], "witness", round=1, bitmap=bitmap({0, 1, 2}))


def attest_checkpoint(chain: Chain) -> Due:
    run, members = stages.cooldown(chain)
    chain.pass_time(60)
    return duty(run, members[1], "attest_checkpoint", step=run.state.step, digests=[bytes(32)])


def record_checkpoint(chain: Chain) -> Due:
    run, members = stages.cooldown(chain)
    run.attest(members)
    return duty(run, members[run.state.uploader], "record_checkpoint", uri="hub://a/b")


def leave(chain: Chain) -> Due:
    run, members = stages.training(chain)
    for m in members[1:]:
        run.duty("commit", m, round=1, hash=commitment(m, 1))
    return duty(run, members[0], "leave")


def evict(chain: Chain) -> Due:
    run, authority = stages.guarded(chain, init_min_clients=2)
    members = [run.member(), run.member()]
    grants = [stages.admit(run, authority, m) for m in members]
    for m in members:
        run.join(m)
    for m in members:
        run.duty("ready", m)
    run.duty("commit", members[1], round=1, hash=commitment(members[1], 1))
    grants[0].set_active(False)
    return run, COORDINATOR.instruction("evict", run.member_accounts(members[0])), []


def tick(chain: Chain) -> Due:
    run, _ = stages.warmup(chain)
    chain.pass_time(60)
    return run, COORDINATOR.instruction("tick", run.accounts), []


TABLE: dict[str, Callable[[Chain], Due]] = {
    "join": join,
    "ready": ready,
    "commit": commit,
    "witness": witness,
    "attest_checkpoint": attest_checkpoint,
    "record_checkpoint": record_checkpoint,
    "leave": leave,
    "evict": evict,
    "tick": tick,
}
DUTIES = [name for name in TABLE if name != "tick"]


def changes(receipt) -> int:
    return sum(name == "PhaseChanged" for name, _ in receipt.events)


def test_table_names_every_instruction_that_ticks():
    ticking = {
        name
        for name, ix in COORDINATOR.instructions.items()
        if any(a["name"] == "slot_hashes" for a in ix["accounts"])
    }
    assert set(TABLE) == ticking


@pytest.mark.parametrize("name", TABLE)
def test_instruction_ticks_when_it_is_sent(chain, name):
    run, ix, signers = TABLE[name](chain)
    nonce = run.state.nonce
    assert changes(chain.send(ix, *signers)) > 0
    assert run.state.nonce > nonce


@pytest.mark.parametrize("name", DUTIES)
def test_duty_called_by_a_program_leaves_the_tick_to_the_next(chain, name):
    run, ix, signers = TABLE[name](chain)
    before = run.state
    assert changes(chain.send(through_caller(ix), *signers)) == 0
    after = run.state
    assert (after.phase, after.next_round, after.history) == (before.phase, before.next_round, before.history)
    assert after.nonce == before.nonce + 1  # the duty itself was done
    with pytest.raises(Refused):
        chain.send(ix, *signers)  # and counts: it cannot be done twice
    assert changes(run.tick()) > 0


@pytest.mark.parametrize("name", DUTIES)
def test_caller_that_undoes_a_duty_has_seen_no_seed(chain, name):
    run, ix, signers = TABLE[name](chain)
    before = chain.data(run.log.pubkey())
    with pytest.raises(Refused) as caught:
        chain.send(through_caller(ix, undo=True), *signers)
    assert caught.value.name == f"{CALLER}: {UNDONE}"
    assert chain.data(run.log.pubkey()) == before


@pytest.mark.parametrize("undo", [False, True])
def test_tick_called_by_a_program_is_refused(chain, refused, undo):
    run, ix, _ = tick(chain)
    before = chain.data(run.log.pubkey())
    with refused("TickFromProgram"):
        chain.send(through_caller(ix, undo=undo))
    assert chain.data(run.log.pubkey()) == before
    run.tick()


def test_duties_of_many_members_in_one_call(chain):
    """Everything that is due waits until nobody can undo it, however many calls there are."""
    run, members = stages.training(chain)
    calls = [duty(run, m, "commit", round=1, hash=commitment(m, 1)) for m in members]
    for _, ix, signers in calls:
        assert changes(chain.send(through_caller(ix), *signers)) == 0
    assert run.state.open.committed == {0, 1, 2}
    assert run.state.phase == "RoundTrain"
    run.tick()
    assert run.state.open.number == 2


def after(chain: Chain) -> Instruction:
    """Something harmless that follows."""
    return transfer(
        TransferParams(from_pubkey=chain.rich.pubkey(), to_pubkey=chain.rich.pubkey(), lamports=1)
    )


@pytest.mark.parametrize("name", DUTIES)
def test_duty_that_is_not_last_leaves_the_tick_to_the_next(chain, name):
    """What follows in the transaction could look at the seed and fail."""
    run, ix, signers = TABLE[name](chain)
    before = run.state
    assert changes(chain.send([ix, after(chain)], *signers)) == 0
    assert (run.state.phase, run.state.nonce) == (before.phase, before.nonce + 1)
    assert changes(run.tick()) > 0


@pytest.mark.parametrize("name", TABLE)
def test_instruction_that_is_last_ticks_whatever_comes_before(chain, name):
    _, ix, signers = TABLE[name](chain)
    assert changes(chain.send([after(chain), after(chain), ix], *signers)) > 0


@pytest.mark.parametrize("name", TABLE)
def test_look_alike_of_the_instructions_sysvar_is_refused(chain, refused, name):
    """An account that says "you are the last one" is not believed."""
    _, ix, signers = TABLE[name](chain)
    fake = Keypair().pubkey()
    place(chain, fake, (1).to_bytes(2, "little") + bytes(40) + (0).to_bytes(2, "little"), Keypair().pubkey())
    metas = [
        AccountMeta(fake if meta.pubkey == INSTRUCTIONS else meta.pubkey, meta.is_signer, meta.is_writable)
        for meta in ix.accounts
    ]
    with refused("WrongInstructions"):
        chain.send([Instruction(ix.program_id, ix.data, metas), after(chain)], *signers)
