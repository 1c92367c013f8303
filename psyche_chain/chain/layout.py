"""NumPy dtypes of `RunState`, field by field as in the program (`programs/coordinator/src/state`).

Every structure is `#[repr(C)]` and little-endian. Paddings are written out, as they are in Rust, so that an
offset never depends on a rule of this module; a test compares each of them with
`programs/coordinator/layout.json`.
"""

from functools import lru_cache
from hashlib import sha256
from typing import Final

import numpy as np

DISCRIMINATOR: Final = sha256(b"account:RunState").digest()[:8]
VERSION: Final = 1
RING: Final = 4
"""Rounds kept on chain; round r lives at index r % RING."""
MAX_CAPACITY: Final = 256
MAX_WITNESSES: Final = 32
MAX_TIER: Final = 2
FILLS: Final = 8
URI_BYTES: Final = 128
NO_SLOT: Final = 0xFFFF
"""`Header.uploader` when nobody was drawn."""

_KEY = "V32"
_BITS = ("<u8", (4,))

INTERVAL: Final = np.dtype([("start", "<u4", (2,)), ("len", "<u4")])

CONFIG: Final = np.dtype(
    [
        ("warmup_time", "<u8"),
        ("cooldown_time", "<u8"),
        ("max_round_train_time", "<u8"),
        ("round_witness_time", "<u8"),
        ("epoch_time", "<u8"),
        ("waiting_for_members_extra_time", "<u8"),
        ("global_batch_size_warmup_tokens", "<u8"),
        ("total_steps", "<u8"),
        ("global_batch_size_start", "<u4"),
        ("global_batch_size_end", "<u4"),
        ("max_seq_len", "<u4"),
        ("pay_per_tier", "<u4", (4,)),
        ("init_min_clients", "<u2"),
        ("min_clients", "<u2"),
        ("min_full_members", "<u2"),
        ("witness_nodes", "<u2"),
        ("max_missed", "<u2"),
        ("max_failed_warmups", "<u2"),
        ("max_tier", "u1"),
        ("_pad", "V7"),
    ]
)

CHECKPOINT: Final = np.dtype(
    [
        ("weights_hash", _KEY),
        ("history", _KEY),
        ("step", "<u8"),
        ("round", "<u8"),
        ("data_index", "<u8"),
        ("epoch", "<u8"),
        ("uri_len", "<u2"),
        ("agreed", "u1"),
        ("_pad", "V5"),
        ("uri", f"V{URI_BYTES}"),
    ]
)

ROUND: Final = np.dtype(
    [
        ("number", "<u8"),
        ("step", "<u8"),
        ("epoch", "<u8"),
        ("data_index", "<u8"),
        ("opened_at", "<i8"),
        ("seed", _KEY),
        ("assigned", *_BITS),
        ("committed", *_BITS),
        ("witnesses", *_BITS),
        ("attested", *_BITS),
        ("accepted", *_BITS),
        ("fills", INTERVAL, (FILLS,)),
        ("samples", "<u4"),
        ("num_fills", "<u2"),
        ("trained", "u1"),
        ("status", "u1"),
    ]
)

SLOT: Final = np.dtype(
    [
        ("wallet", _KEY),
        ("hot_key", _KEY),
        ("p2p_key", _KEY),
        ("earned", "<u8"),
        ("last_epoch", "<u4"),
        ("weight", "<u2"),
        ("next_weight", "<u2"),
        ("missed", "<u2"),
        ("missed_warmups", "<u2"),
        ("status", "u1"),
        ("flags", "u1"),
        ("tier", "u1"),
        ("next_tier", "u1"),
    ]
)

HEADER: Final = np.dtype(
    [
        ("version", "<u8"),
        ("nonce", "<u8"),
        ("run", _KEY),
        ("spec_hash", _KEY),
        ("history", _KEY),
        ("seed", _KEY),
        ("config", CONFIG),
        ("round_rate", "<u8"),
        ("next_round_rate", "<u8"),
        ("pay_carry", "<u8"),
        ("epoch", "<u8"),
        ("step", "<u8"),
        ("data_index", "<u8"),
        ("next_round", "<u8"),
        ("phase_start", "<i8"),
        ("epoch_start", "<i8"),
        ("lost_samples", "<u8"),
        ("fills_since_checkpoint", "<u8"),
        ("lost_since_checkpoint", "<u8"),
        ("total_earned", "<u8"),
        ("created_slot", "<u8"),
        ("capacity", "<u2"),
        ("returned_len", "<u2"),
        ("failed_warmups", "<u2"),
        ("uploader", "<u2"),
        ("phase", "u1"),
        ("flags", "u1"),
        ("open", "u1"),
        ("_pad", "V5"),
        ("checkpoint", CHECKPOINT),
        ("pending", CHECKPOINT),
        ("rounds", ROUND, (RING,)),
    ]
)

STRUCTS: Final = {
    "Config": CONFIG,
    "Interval": INTERVAL,
    "Checkpoint": CHECKPOINT,
    "Round": ROUND,
    "Slot": SLOT,
    "Header": HEADER,
}


@lru_cache(maxsize=8)
def run_state_dtype(capacity: int) -> "np.dtype[np.void]":
    """The whole account, discriminator included, for a table of `capacity` slots.

    Raises:
        ValueError: `capacity` is not in 1..256.
    """
    if not 1 <= capacity <= MAX_CAPACITY:
        raise ValueError(f"capacity = {capacity}, allowed 1..{MAX_CAPACITY}")
    return np.dtype(
        [
            ("discriminator", "V8"),
            ("header", HEADER),
            ("slots", SLOT, (capacity,)),
            ("commitments", _KEY, (RING, capacity)),
            ("attestations", "<u8", (MAX_WITNESSES, 4)),
            ("returned", INTERVAL, (capacity,)),
        ]
    )


def run_state_size(capacity: int) -> int:
    """Bytes of a `RunState` account, discriminator included."""
    return run_state_dtype(capacity).itemsize
