"""Stretches that several scenes have in common."""

import hashlib
from typing import Any

from psyche_chain.admin.create import PIECE_BYTES
from tests.programs.chain_harness import Member, config
from tests.programs.costs.scene import LONG_TEXTS, LONG_URI, Scene

LONGEST_SPEC = 10_000


def set_up(scene: Scene, **changes: Any) -> None:
    """What the authority does before anybody joins."""
    for length, case in ((len(scene.run.spec), "usual"), (LONGEST_SPEC, "longest")):
        write_spec(scene, length, case)
    batch = {"global_batch_size_start": scene.capacity * 5, "global_batch_size_end": scene.capacity * 5}
    scene.act("configure", "", config=config(init_min_clients=scene.capacity, **batch | changes))
    scene.act("set_round_rate", "", rate=1_000_003)
    scene.act("set_metadata", "longest texts", **LONG_TEXTS, join_authority=scene.run.join_authority)
    scene.act("set_paused", "resumes", paused=False)
    scene.act("set_paused", "pauses", paused=True)
    scene.act("set_paused", "resumes", paused=False)
    scene.size_of("Run", "", scene.run.key)
    scene.size_of("RunState", "", scene.run.log.pubkey())


def write_spec(scene: Scene, length: int, case: str) -> None:
    """Announce, write and seal a specification, in pieces as the client writes them."""
    spec = bytes(length)
    scene.act("reset_spec", "", spec_len=length, spec_sha256=hashlib.sha256(spec).digest())
    for at in range(0, length, PIECE_BYTES):
        scene.act("write_spec", f"up to {PIECE_BYTES} bytes", offset=at, bytes=spec[at : at + PIECE_BYTES])
    scene.act("seal_spec", case)
    scene.size_of("Spec", f"{length:,} bytes", scene.run.spec_key)


def play_round(scene: Scene, case: str, *, by_witness: bool = False, share: int = 1) -> None:
    """Everybody commits and attests every `share`-th commitment of the round before.

    The last commit, or the last attestation, makes `case` due.
    """
    state = scene.run.state
    number = state.open.number
    before = next((r for r in state.rounds if r.number == number - 1 and r.status == 2), None)
    committed = before.committed if before else set()
    witnesses = [m for m in scene.members if before and m.slot in before.witnesses]
    workers = [m for m in scene.members if m.slot in state.open.assigned]
    held = {slot for slot in committed if slot % share == 0}
    if not by_witness:
        for m in witnesses:
            scene.vote(m, number - 1, held)
    for m in workers:
        last = m is workers[-1] and not by_witness
        scene.commit(m, number, case if last else "nothing due")
    if by_witness:
        for m in witnesses:
            scene.vote(m, number - 1, held, case if m is witnesses[-1] else "nothing due")
    scene.chain.pass_time(1)


def attest(scene: Scene, members: list[Member], parts: int) -> bool:
    """They attest the same weights, of which there are so many parts. Returns whether that settled it."""
    step = scene.run.state.step
    agreed = False
    for m in members:
        digests = [bytes([p + 1]) * 32 for p in range(parts - m.tier)]
        with scene.paid_by(m.hot_key):
            receipt = scene.run.duty("attest_checkpoint", m, step=step, digests=digests)
        now = any(event == "CheckpointAgreed" for event, _ in receipt.events)
        case = "agreed before" if agreed else "the vote that agrees" if now else "votes are counted"
        scene.note("coordinator.attest_checkpoint", f"{case}, {parts} parts", receipt)
        agreed = agreed or now
    return agreed


def record(scene: Scene, case: str = "makes one transition") -> None:
    """The uploader, or any full member where none was drawn, says where the weights are."""
    uploader = scene.run.state.uploader
    full = [m for m in scene.members if m.tier == 0 and scene.run.state.slots[m.slot].status == 2]
    member = next((m for m in full if m.slot == uploader), full[0])
    scene.duty("record_checkpoint", member, case, uri=LONG_URI)


def close_membership(scene: Scene, member: Member) -> None:
    run = scene.run
    scene.size_of("Membership", "", run.membership(member.wallet.pubkey()))
    scene.send("coordinator.close_membership", "", run.member_accounts(member), member.wallet)


def sizes_of_pool(scene: Scene, member: Member) -> None:
    run = scene.run
    scene.size_of("Pool", "", run.pool)
    scene.size_of("Vault (token account)", "", run.vault)
    scene.size_of("Claim", "", run.member_accounts(member)["claim"])
