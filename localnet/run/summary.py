"""The end of a run in numbers, and whether it kept its promises.

`build` reads checkpoints, the log of rounds and the chain; `problems` compares them with each other. Nothing is
taken from a member's own word: weights are hashed again from the files, pay is computed again from the log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from localnet.run.plot import bytes_per_param_step
from localnet.run.progress import MemberProgress
from psyche_chain.admin.rewards import RunPay
from psyche_chain.chain.state import RunState
from psyche_train.checkpoints.store import verify
from psyche_train.fold.digest import part_digests, weights_hash
from psyche_train.matformer.loading import inferred, read_family
from psyche_train.matformer.stored import StoredWeights
from psyche_train.models.schema import Schema
from psyche_train.records import GENESIS, RoundRecord
from psyche_train.resolve import with_folded
from psyche_train.spec import TrainSpec


@dataclass(frozen=True, slots=True)
class Weights:
    """What a checkpoint holds: digests ``[g_T, ..., g_t]`` and ``h_t``, see `psyche_train.fold.digest`."""

    digests: tuple[bytes, ...]
    hash: bytes
    parameters: int


def read_weights(checkpoint: Path, spec: TrainSpec) -> Weights:
    """Hash a checkpoint's tensors from the files, folded state included.

    Raises:
        CheckpointError: it is missing, torn, or not a model of this run.
    """
    verify(checkpoint)
    schema = Schema.of(read_family(checkpoint), spec.matformer.max_tier)
    source = inferred(checkpoint, schema)
    shared = with_folded(schema, spec)
    with StoredWeights(source, shared, source.tier) as weights:
        digests = part_digests(shared, weights, source.tier)
    return Weights(tuple(digests), weights_hash(digests), schema.num_parameters(source.tier))


@dataclass(frozen=True, slots=True)
class MemberSummary:
    """One member at the end. Losses in nats per token; `claimed` in base units of the token."""

    slot: int | None
    wallet: str
    tier: int
    first_loss: float | None
    """Training loss of the first step that it trained."""
    final_loss: float | None
    """Training loss of the last one."""
    first_val_loss: float | None
    val_loss: float | None
    """Validation loss of the final weights, on the member's own slice."""
    rounds_accepted: int
    checkpoint: str | None
    """Relative to the folder that the command was called in."""
    weights_sha256: str | None
    """``h_tier`` of the checkpoint's tensors, computed from the file."""
    claimed: int
    earned: int
    restarts: int


@dataclass(frozen=True, slots=True)
class ChainSummary:
    """The chain's view. Money in base units of the token."""

    run: str
    phase: str
    weights_sha256: str
    """``h_0`` that the members agreed on last."""
    checkpoint_step: int
    history: str
    funded: int
    paid: int
    left_in_vault: int
    lost_samples: int


@dataclass(frozen=True, slots=True)
class Summary:
    """`summary.json`."""

    run: str
    steps: int
    epochs: int
    wall_seconds: float
    parameters: int
    bytes_per_param_step: float | None
    members: tuple[MemberSummary, ...]
    chain: ChainSummary
    kills: int
    problems: tuple[str, ...]
    """Promises that this run broke; empty for a good run."""

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def accepted_rounds(records: Sequence[RoundRecord]) -> dict[int, int]:
    """Rounds in which each slot's update was accepted."""
    counts: dict[int, int] = {}
    for record in records:
        for entry in record.accepted:
            counts[entry.slot] = counts.get(entry.slot, 0) + 1
    return counts


def expected_pay(records: Sequence[RoundRecord], rate: int, pay_per_tier: Sequence[int]) -> dict[int, int]:
    """Base units that each slot earned if every round paid `rate`: the coordinator's rule, written again.

    A round's rate and what the round before left over are shared in proportion to weight x pay(tier), rounded
    down; the rest is carried.
    """
    earned: dict[int, int] = {}
    carry = 0
    for record in records:
        shares = {a.slot: a.weight * pay_per_tier[a.tier] for a in record.accepted}
        if not (total := sum(shares.values())):
            continue
        carry += rate
        parts = {slot: carry * share // total for slot, share in shares.items()}
        for slot, part in parts.items():
            earned[slot] = earned.get(slot, 0) + part
        carry -= sum(parts.values())
    return earned


def build(
    *,
    members: Sequence[MemberProgress],
    weights: Mapping[int, Weights],
    state: RunState,
    pay: RunPay,
    claimed: Sequence[int],
    records: Sequence[RoundRecord],
    run_id: str,
    wall_s: float,
    kills: int,
    extra_problems: Sequence[str],
) -> Summary:
    """Put the summary together.

    Args:
        weights: by member index, of those whose checkpoint could be read.
        records: the whole log from the first round, put together from the members' files.
    """
    rounds = accepted_rounds(records)
    slots = {str(s.wallet): s.index for s in state.members()}
    earned = {str(m.wallet): m.earned for m in pay.members}
    rows = []
    for member, amount in zip(members, claimed, strict=True):
        held = weights.get(member.index)
        slot = slots.get(member.wallet, member.slot)
        rows.append(
            MemberSummary(
                slot=slot,
                wallet=member.wallet,
                tier=member.tier,
                first_loss=_first(member.losses),
                final_loss=_last(member.losses),
                first_val_loss=_first(member.val_losses),
                val_loss=_last(member.val_losses),
                rounds_accepted=rounds.get(slot, 0) if slot is not None else 0,
                checkpoint=os.path.relpath(member.checkpoint) if member.checkpoint else None,
                weights_sha256=held.hash.hex() if held else None,
                claimed=amount,
                earned=earned.get(member.wallet, 0),
                restarts=member.restarts,
            )
        )
    chain = ChainSummary(
        run=str(pay.run.key),
        phase=state.phase.label,
        weights_sha256=state.checkpoint.weights_hash.hex(),
        checkpoint_step=state.checkpoint.step,
        history=state.history.hex(),
        funded=pay.funded,
        paid=sum(claimed),
        left_in_vault=pay.vault,
        lost_samples=state.lost_samples,
    )
    return Summary(
        run=run_id,
        steps=state.step,
        epochs=len({r.epoch for r in records if r.trained}),
        wall_seconds=round(wall_s, 1),
        parameters=max((w.parameters for w in weights.values()), default=0),
        bytes_per_param_step=bytes_per_param_step(members),
        members=tuple(rows),
        chain=chain,
        kills=kills,
        problems=(*extra_problems, *problems(rows, weights, members, chain, state, records)),
    )


def problems(
    rows: Sequence[MemberSummary],
    weights: Mapping[int, Weights],
    members: Sequence[MemberProgress],
    chain: ChainSummary,
    state: RunState,
    records: Sequence[RoundRecord],
) -> list[str]:
    """Every promise that was broken, one sentence each."""
    found: list[str] = []
    full = next((w for m in members if m.tier == 0 and (w := weights.get(m.index))), None)
    for member in members:
        held = weights.get(member.index)
        if held is None:
            found.append(f"member {member.index} left no checkpoint that can be read")
        elif full is not None and held.digests != full.digests[: len(held.digests)]:
            found.append(f"member {member.index} (tier {member.tier}) has other weights than tier 0")
    if full is None:
        found.append("no member of tier 0 left a checkpoint")
    elif full.hash.hex() != chain.weights_sha256:
        found.append(f"tier 0 has weights {full.hash.hex()}, the chain agreed on {chain.weights_sha256}")
    if chain.funded != chain.paid + chain.left_in_vault:
        found.append(
            f"money: {chain.funded} came in, {chain.paid} was paid, {chain.left_in_vault} is left in the vault"
        )
    history = GENESIS
    for record in records:
        history = record.next_history(history)
    if history != state.history:
        found.append("the members' logs do not lead to the chain's history")
    elif state.checkpoint.agreed and state.round_rate == state.next_round_rate:
        wanted = expected_pay(records, state.round_rate, state.config.pay_per_tier)
        found += [
            f"slot {row.slot} earned {row.earned}, by its accepted rounds it should be {wanted.get(row.slot, 0)}"
            for row in rows
            if row.slot is not None and row.earned != wanted.get(row.slot, 0)
        ]
    return found


def _first(values: Mapping[int, float]) -> float | None:
    return values[min(values)] if values else None


def _last(values: Mapping[int, float]) -> float | None:
    return values[max(values)] if values else None
