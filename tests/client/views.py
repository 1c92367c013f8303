"""Snapshots for tests, with everything at a sensible default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from solders.pubkey import Pubkey

from psyche_chain.chain.state import (
    ChainConfig,
    Checkpoint,
    Phase,
    RoundStatus,
    RoundView,
    Slot,
    SlotStatus,
    set_to_bits,
)
from psyche_chain.client.ledger import record_of
from psyche_chain.client.view import GENESIS, ChainView, MyState

SPEC = b"\x07" * 32
CONFIG = ChainConfig(
    warmup_time=30,
    cooldown_time=20,
    max_round_train_time=10,
    round_witness_time=8,
    epoch_time=600,
    waiting_for_members_extra_time=2,
    global_batch_size_warmup_tokens=0,
    total_steps=100,
    global_batch_size_start=12,
    global_batch_size_end=12,
    max_seq_len=32,
    pay_per_tier=(1, 1, 1, 1),
    init_min_clients=3,
    min_clients=1,
    min_full_members=1,
    witness_nodes=0,
    max_missed=3,
    max_failed_warmups=3,
    max_tier=1,
)
NO_CHECKPOINT = Checkpoint(
    weights_hash=bytes(32),
    history=GENESIS,
    step=0,
    round=1,
    data_index=0,
    epoch=0,
    agreed=False,
    uri="",
)


def wallet(slot: int) -> Pubkey:
    """The wallet of the member in that slot."""
    return Pubkey.from_bytes(bytes([slot + 1]) * 32)


def blob_id(round_number: int, slot: int) -> bytes:
    """A commitment."""
    return bytes([round_number % 256, slot]) * 16


def member(
    slot: int, *, tier: int | None = None, status: SlotStatus = SlotStatus.ACTIVE, **more: Any
) -> Slot:
    """A member; slot 0 has tier 0, the others tier 1."""
    tier = (0 if slot == 0 else 1) if tier is None else tier
    return Slot(
        index=slot,
        wallet=wallet(slot),
        hot_key=wallet(slot),
        p2p_key=bytes([slot + 101]) * 32,
        earned=0,
        last_epoch=1,
        weight=1,
        next_weight=1,
        missed=0,
        missed_warmups=0,
        status=status,
        ready=more.pop("ready", status is SlotStatus.ACTIVE),
        attested=more.pop("attested", False),
        tier=tier,
        next_tier=tier,
    )


def a_round(
    number: int,
    status: RoundStatus,
    *,
    assigned: Iterable[int] = (0, 1, 2),
    committed: Iterable[int] = (),
    witnesses: Iterable[int] = (),
    attested: Iterable[int] = (),
    accepted: Iterable[int] = (),
    trained: bool = True,
) -> RoundView:
    """A round whose step is one less than its number."""
    members = frozenset(assigned)
    done = frozenset(committed)
    return RoundView(
        number=number,
        step=number - 1,
        epoch=1,
        data_index=12 * (number - 1),
        opened_at=1000,
        seed=bytes([number]) * 32,
        assigned=members,
        committed=done,
        witnesses=frozenset(witnesses),
        attested=frozenset(attested),
        accepted=frozenset(accepted),
        assigned_bits=set_to_bits(members),
        fills=(),
        samples=12 if trained else 0,
        trained=trained,
        status=status,
        commitments=tuple(blob_id(number, s) if s in done else bytes(32) for s in range(16)),
    )


def a_view(phase: Phase, *rounds: RoundView, before: bytes = GENESIS, **more: Any) -> ChainView:
    """A snapshot at phase start 1000; `history` is that of the closed rounds, folded onto `before`."""
    slots = more.pop("slots", None) or {i: member(i) for i in range(3)}
    view = ChainView(
        nonce=more.pop("nonce", 5),
        chain_slot=100,
        phase=phase,
        epoch=1,
        step=max((r.step + 1 for r in rounds if r.trained), default=0),
        next_round=rounds[-1].number + 1 if rounds else 1,
        history=GENESIS,
        spec_hash=SPEC,
        phase_start=1000,
        epoch_start=900,
        config=more.pop("config", CONFIG),
        checkpoint=more.pop("checkpoint", NO_CHECKPOINT),
        pending=more.pop("pending", NO_CHECKPOINT),
        rounds=rounds,
        slots=slots,
        **more,
    )
    history = before
    for round_ in rounds:
        if round_.status is RoundStatus.CLOSED:
            record = record_of(view, round_)
            assert record is not None
            history = record.next_history(history)
    return replace(view, history=history)


def me(slot: int, view: ChainView, **more: Any) -> MyState:
    """A member that is up to date with the snapshot, unless told otherwise."""
    defaults: dict[str, Any] = {
        "wallet": wallet(slot),
        "history": view.history,
        "revealed": 10**6,
        "saved": frozenset({view.history}),
        "validated": frozenset({view.history}),
        "contact": "/ip4/127.0.0.1/tcp/4001",
        "contact_on_chain": "/ip4/127.0.0.1/tcp/4001",
    }
    return MyState(**{**defaults, **more})
