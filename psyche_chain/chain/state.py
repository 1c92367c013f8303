"""`RunState` as a snapshot: bytes of the account in, typed and validated values out.

A snapshot is immutable and is checked completely before anything of it is used: owner, discriminator,
version, capacity, exact size, and every number that indexes something. Arbitrary bytes give `DecodeError`,
nothing else.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

import numpy as np
from solders.pubkey import Pubkey

from psyche_chain.chain import layout
from psyche_chain.chain.errors import DecodeError
from psyche_chain.chain.ids import COORDINATOR_ID
from psyche_chain.chain.views import (
    ChainConfig,
    Checkpoint,
    Phase,
    RoundStatus,
    RoundView,
    Slot,
    SlotStatus,
    bits_to_set,
    checkpoint_of,
    interval,
    set_to_bits,
    slot_of,
)

__all__ = [
    "ChainConfig",
    "Checkpoint",
    "Phase",
    "RoundStatus",
    "RoundView",
    "RunState",
    "Slot",
    "SlotStatus",
    "bits_to_set",
    "set_to_bits",
]

FLAG_PAUSE_REQUESTED: Final = 1
FLAG_CONFIGURED: Final = 2
FLAG_SPEC_SEALED: Final = 4
FLAG_DRAINING: Final = 8
FLAG_URI_MISSING: Final = 16


class RunState:
    """A validated snapshot of a run's log."""

    def __init__(self, raw: Any, *, slot: int = 0) -> None:
        self._raw = raw
        self._header = raw["header"]
        self.seen_at: int = slot
        """Slot of the chain at which an endpoint read these bytes (0: unknown)."""
        self.capacity: int = int(self._header["capacity"])

    @classmethod
    def from_account(cls, data: bytes, *, owner: Pubkey | None = None, slot: int = 0) -> "RunState":
        """Check an account's bytes and wrap them; the bytes are copied.

        Args:
            data: the whole account, discriminator included.
            owner: the account's owner, where it is known; it must be the coordinator.
            slot: the chain's slot of the answer that carried the bytes.

        Raises:
            DecodeError: the bytes are not a `RunState` of a version that this client reads.
        """
        if owner is not None and owner != COORDINATOR_ID:
            raise DecodeError(f"RunState is owned by {owner}, not by the coordinator {COORDINATOR_ID}")
        head_size = 8 + layout.HEADER.itemsize
        if len(data) < head_size:
            raise DecodeError(f"RunState holds {len(data)} bytes, at least {head_size} are needed")
        if data[:8] != layout.DISCRIMINATOR:
            raise DecodeError(f"RunState starts with {data[:8].hex()}, not with {layout.DISCRIMINATOR.hex()}")
        header: Any = np.frombuffer(data, dtype=layout.HEADER, count=1, offset=8)[0]
        if (version := int(header["version"])) != layout.VERSION:
            raise DecodeError(
                f"RunState has version {version}, this client reads {layout.VERSION}",
                "install the release of psyche-py that the run's operator names",
            )
        if not 1 <= (capacity := int(header["capacity"])) <= layout.MAX_CAPACITY:
            raise DecodeError(f"RunState has capacity {capacity}, allowed 1..{layout.MAX_CAPACITY}")
        if len(data) != (size := layout.run_state_size(capacity)):
            raise DecodeError(f"RunState holds {len(data)} bytes, {size} are right for {capacity} slots")
        state = cls(np.frombuffer(bytes(data), dtype=layout.run_state_dtype(capacity), count=1)[0], slot=slot)
        state._check()
        return state

    def _check(self) -> None:
        """Every number that indexes or names something is in its range."""
        h = self._header
        for name, value, allowed in (
            ("phase", int(h["phase"]), max(Phase)),
            ("open", int(h["open"]), layout.RING - 1),
            ("returned_len", int(h["returned_len"]), self.capacity),
            ("checkpoint.uri_len", int(h["checkpoint"]["uri_len"]), layout.URI_BYTES),
            ("pending.uri_len", int(h["pending"]["uri_len"]), layout.URI_BYTES),
            ("max_tier", int(h["config"]["max_tier"]), layout.MAX_TIER),
            ("num_fills", int(h["rounds"]["num_fills"].max()), layout.FILLS),
            ("round.status", int(h["rounds"]["status"].max()), max(RoundStatus)),
            ("slot.status", int(self._raw["slots"]["status"].max()), max(SlotStatus)),
        ):
            if value > allowed:
                raise DecodeError(f"RunState.{name} = {value}, allowed 0..{allowed}")

    def _int(self, name: str) -> int:
        return int(self._header[name])

    @property
    def nonce(self) -> int:
        """Grows by one with every change."""
        return self._int("nonce")

    @cached_property
    def run(self) -> Pubkey:
        """The `Run` account that this state belongs to."""
        return Pubkey.from_bytes(self._header["run"].tobytes())

    @property
    def spec_hash(self) -> bytes:
        """SHA-256 of the sealed specification."""
        return bytes(self._header["spec_hash"].tobytes())

    @property
    def history(self) -> bytes:
        """Hash chain over all closed rounds; 32 zero bytes before the first."""
        return bytes(self._header["history"].tobytes())

    @property
    def seed(self) -> bytes:
        """Seed of the newest round."""
        return bytes(self._header["seed"].tobytes())

    @cached_property
    def config(self) -> ChainConfig:
        """The configuration (all zeros before `configure`)."""
        raw = self._header["config"]
        values: dict[str, Any] = {
            name: tuple(raw[name].tolist()) if name == "pay_per_tier" else int(raw[name])
            for name in layout.CONFIG.names or ()
            if name != "_pad"
        }
        return ChainConfig(**values)

    @property
    def round_rate(self) -> int:
        """Points paid for each trained round of this epoch."""
        return self._int("round_rate")

    @property
    def next_round_rate(self) -> int:
        """The rate from the next epoch on."""
        return self._int("next_round_rate")

    @property
    def epoch(self) -> int:
        return self._int("epoch")

    @property
    def step(self) -> int:
        """Trained rounds opened so far; the next one has this step."""
        return self._int("step")

    @property
    def data_index(self) -> int:
        """First sample that was never assigned."""
        return self._int("data_index")

    @property
    def next_round(self) -> int:
        """Number of the next round."""
        return self._int("next_round")

    @property
    def phase_start(self) -> int:
        """Unix seconds."""
        return self._int("phase_start")

    @property
    def epoch_start(self) -> int:
        """Unix seconds."""
        return self._int("epoch_start")

    @property
    def lost_samples(self) -> int:
        return self._int("lost_samples")

    @property
    def total_earned(self) -> int:
        """Points earned by everyone since the run was created."""
        return self._int("total_earned")

    @property
    def created_slot(self) -> int:
        """The chain's slot when the run was created: an earlier run at this address had another."""
        return self._int("created_slot")

    @property
    def failed_warmups(self) -> int:
        return self._int("failed_warmups")

    @property
    def phase(self) -> Phase:
        return Phase(self._int("phase"))

    @property
    def flags(self) -> int:
        return self._int("flags")

    @property
    def pause_requested(self) -> bool:
        return bool(self.flags & FLAG_PAUSE_REQUESTED)

    @property
    def configured(self) -> bool:
        return bool(self.flags & FLAG_CONFIGURED)

    @property
    def spec_sealed(self) -> bool:
        return bool(self.flags & FLAG_SPEC_SEALED)

    @property
    def draining(self) -> bool:
        """The newest round is the one in which nobody trains."""
        return bool(self.flags & FLAG_DRAINING)

    @property
    def uri_missing(self) -> bool:
        """Weights are agreed; the uploader has not yet recorded where they are."""
        return bool(self.flags & FLAG_URI_MISSING)

    @property
    def uploader(self) -> int | None:
        """Slot drawn to record the checkpoint's uri."""
        slot = self._int("uploader")
        return slot if slot < self.capacity else None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The last agreed checkpoint."""
        return checkpoint_of(self._header["checkpoint"])

    @cached_property
    def pending(self) -> Checkpoint:
        """The checkpoint being agreed in Cooldown."""
        return checkpoint_of(self._header["pending"])

    @cached_property
    def rounds(self) -> tuple[RoundView, ...]:
        """The ring, oldest first, empty entries left out."""
        views = (self._round(i) for i in range(layout.RING))
        return tuple(sorted((r for r in views if r.status is not RoundStatus.EMPTY), key=lambda r: r.number))

    @cached_property
    def rounds_by_number(self) -> dict[int, RoundView]:
        return {r.number: r for r in self.rounds}

    @property
    def current(self) -> RoundView | None:
        """The newest round, if one was ever opened."""
        view = self._round(self._int("open"))
        return None if view.status is RoundStatus.EMPTY else view

    def _round(self, index: int) -> RoundView:
        raw = self._header["rounds"][index]
        numbers: dict[str, Any] = {
            name: int(raw[name]) for name in ("number", "step", "epoch", "data_index", "opened_at", "samples")
        }
        sets: dict[str, Any] = {
            name: bits_to_set(raw[name], self.capacity)
            for name in ("assigned", "committed", "witnesses", "attested", "accepted")
        }
        return RoundView(
            **numbers,
            **sets,
            seed=raw["seed"].tobytes(),
            assigned_bits=raw["assigned"].tobytes(),
            fills=tuple(interval(raw["fills"][i]) for i in range(int(raw["num_fills"]))),
            trained=bool(raw["trained"]),
            status=RoundStatus(int(raw["status"])),
            commitments=tuple(c.tobytes() for c in self._raw["commitments"][index]),
        )

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The whole table, free slots included."""
        return tuple(slot_of(i, raw) for i, raw in enumerate(self._raw["slots"]))

    def members(self) -> Iterator[Slot]:
        """Slots that somebody holds (waiting, active or departed)."""
        return (s for s in self.slots if s.status is not SlotStatus.FREE)

    def slot_of(self, wallet: Pubkey) -> Slot | None:
        """The slot that `wallet` holds."""
        return next((s for s in self.members() if s.wallet == wallet), None)

    @cached_property
    def attestations(self) -> tuple[frozenset[int], ...]:
        """By witness, in slot order, of the round that is being attested."""
        return tuple(bits_to_set(words, self.capacity) for words in self._raw["attestations"])

    @cached_property
    def returned(self) -> tuple[range, ...]:
        """Sample intervals that wait to be assigned again, oldest first."""
        return tuple(interval(self._raw["returned"][i]) for i in range(self._int("returned_len")))

    def deadline(self) -> int | None:
        """Unix seconds at which the present phase ends at the latest; None where nothing is due by time."""
        seconds = {
            Phase.WARMUP: self.config.warmup_time,
            Phase.ROUND_TRAIN: self.config.max_round_train_time,
            Phase.ROUND_WITNESS: self.config.round_witness_time,
            Phase.COOLDOWN: self.config.cooldown_time,
        }.get(self.phase)
        return None if seconds is None else self.phase_start + seconds
