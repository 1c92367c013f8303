"""Round records read off the chain, and the test that they are the chain's.

A record is never believed: a list of records belongs to the log if hashing it onto a history that is
already known gives a history that the chain shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psyche_chain.client.view import ChainView, RoundStatus, RoundView
from psyche_train.records import Accepted, RoundRecord


def record_of(view: ChainView, round_: RoundView) -> RoundRecord | None:
    """The record that closing `round_` hashed, or None if the account no longer shows all of it."""
    accepted = []
    for slot in sorted(round_.accepted):
        member, commitment = view.slots.get(slot), round_.commitments[slot]
        if member is None:
            return None
        accepted.append(Accepted(slot=slot, tier=member.tier, weight=member.weight, commitment=commitment))
    return RoundRecord(
        epoch=round_.epoch,
        number=round_.number,
        step=round_.step,
        trained=round_.trained,
        seed=round_.seed,
        data_index=round_.data_index,
        samples=round_.samples,
        assigned=round_.assigned_bits,
        spec_hash=view.spec_hash,
        accepted=tuple(accepted),
    )


def ring_records(view: ChainView) -> list[RoundRecord]:
    """Records of the closed rounds at the end of the log, oldest first, as far back as the ring goes."""
    records: list[RoundRecord] = []
    closed = [r for r in view.rounds if r.status == RoundStatus.CLOSED]
    for round_ in reversed(closed):
        record = record_of(view, round_)
        if record is None or (records and records[-1].number != record.number + 1):
            break
        records.append(record)
    return records[::-1]


def head(history: bytes, records: Iterable[RoundRecord]) -> bytes:
    """The history after `records`."""
    for record in records:
        history = record.next_history(history)
    return history


def link(history: bytes, view: ChainView) -> list[RoundRecord] | None:
    """The records that lead from `history` to the chain's head, or None if the ring does not show them."""
    if history == view.history:
        return []
    records = ring_records(view)
    for count in range(1, len(records) + 1):
        tail = records[-count:]
        if head(history, tail) == view.history:
            return tail
    return None


def link_through(
    history: bytes, candidates: Iterable[Sequence[RoundRecord]], view: ChainView
) -> list[RoundRecord] | None:
    """The records that lead from `history` through one of the `candidates` to a history that the chain shows.

    Candidates come from peers and may be anything. The chain shows its head and that of the last agreed
    checkpoint; the head is preferred, and the ring may supply the last records.

    Returns:
        A verified list, or None if no candidate leads anywhere that the chain vouches for.
    """
    records = ring_records(view)
    to_checkpoint: list[RoundRecord] | None = None
    for candidate in candidates:
        histories = [history]
        for record in candidate:
            histories.append(record.next_history(histories[-1]))
        if view.history in histories:
            return list(candidate[: histories.index(view.history)])
        for used in range(len(candidate), -1, -1):
            for count in range(1, len(records) + 1):
                tail = records[-count:]
                if head(histories[used], tail) == view.history:
                    return [*candidate[:used], *tail]
        if view.checkpoint.agreed and view.checkpoint.history in histories[1:]:
            to_checkpoint = list(candidate[: histories.index(view.checkpoint.history)])
    return to_checkpoint
