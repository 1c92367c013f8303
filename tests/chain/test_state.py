"""Decoding of accounts: every byte string gives a value or a `DecodeError`."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from psyche_chain.chain import accounts, ids, layout
from psyche_chain.chain.errors import DecodeError
from psyche_chain.chain.programs import NAMES, program
from psyche_chain.chain.queries import Account
from psyche_chain.chain.state import Phase, RoundStatus, RunState, SlotStatus, bits_to_set, set_to_bits

ROOT = Path(__file__).resolve().parents[2]
KEY = Pubkey.from_bytes(bytes(range(32)))


def empty(capacity: int = 16) -> np.ndarray:
    account = np.zeros(1, dtype=layout.run_state_dtype(capacity))
    account["discriminator"] = np.void(layout.DISCRIMINATOR)
    account["header"]["version"] = layout.VERSION
    account["header"]["capacity"] = capacity
    return account


def test_layout_equals_the_programs() -> None:
    frozen = json.loads((ROOT / "programs/coordinator/layout.json").read_text())
    structs = frozen.get("structs", frozen)
    for name, dtype in layout.STRUCTS.items():
        assert structs[name]["size"] == dtype.itemsize, name
        ours = {f: [dtype.fields[f][1], dtype.fields[f][0].itemsize] for f in dtype.names}
        assert ours == structs[name]["fields"], name


@pytest.mark.parametrize(("capacity", "limit"), [(16, 8_192), (256, 73_728)])
def test_size_stays_within_the_design(capacity: int, limit: int) -> None:
    assert layout.run_state_size(capacity) <= limit


def test_empty_state_decodes() -> None:
    state = RunState.from_account(empty().tobytes(), owner=ids.COORDINATOR_ID, slot=7)
    assert state.phase is Phase.UNINITIALIZED
    assert state.seen_at == 7
    assert state.rounds == ()
    assert state.current is None
    assert list(state.members()) == []
    assert state.uploader == 0  # the number itself: only 0xffff means nobody


def test_values_come_out_where_they_were_put() -> None:
    raw = empty()
    header = raw["header"][0]
    header["phase"], header["epoch"], header["open"], header["uploader"] = 3, 5, 2, layout.NO_SLOT
    header["returned_len"] = 1
    raw["returned"][0][0]["start"] = (1, 1)
    raw["returned"][0][0]["len"] = 3
    ring = header["rounds"][2]
    ring["number"], ring["status"], ring["trained"], ring["num_fills"] = 10, 1, 1, 1
    ring["assigned"] = (0b1001, 0, 0, 0)
    ring["fills"][0]["start"], ring["fills"][0]["len"] = (100, 0), 4
    raw["commitments"][0][2][3] = np.void(b"\x07" * 32)
    slot = raw["slots"][0][3]
    slot["wallet"], slot["status"], slot["flags"], slot["tier"] = np.void(bytes(KEY)), 2, 1, 1
    state = RunState.from_account(raw.tobytes())
    assert (state.phase, state.epoch, state.uploader) == (Phase.ROUND_TRAIN, 5, None)
    assert state.returned == (range(2**32 + 1, 2**32 + 4),)
    current = state.current
    assert current is not None
    assert (current.number, current.status, current.trained) == (10, RoundStatus.OPEN, True)
    assert current.assigned == {0, 3}
    assert current.fills == (range(100, 104),)
    assert current.commitments[3] == b"\x07" * 32
    mine = state.slot_of(KEY)
    assert mine is not None
    assert (mine.index, mine.status, mine.tier, mine.assignable) == (3, SlotStatus.ACTIVE, 1, True)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("version", 2, "version 2"),
        ("capacity", 0, "capacity 0"),
        ("capacity", 257, "capacity 257"),
        ("capacity", 15, "are right for 15 slots"),
        ("phase", 8, "phase = 8"),
        ("open", 4, "open = 4"),
        ("returned_len", 17, "returned_len = 17"),
    ],
)
def test_bad_header_is_refused_with_the_value(field: str, value: int, text: str) -> None:
    raw = empty()
    raw["header"][field] = value
    with pytest.raises(DecodeError, match=text):
        RunState.from_account(raw.tobytes())


def test_wrong_owner_discriminator_and_size_are_refused() -> None:
    good = empty().tobytes()
    with pytest.raises(DecodeError, match="owned by"):
        RunState.from_account(good, owner=ids.SYSTEM_ID)
    with pytest.raises(DecodeError, match="starts with"):
        RunState.from_account(bytes(8) + good[8:])
    with pytest.raises(DecodeError, match="bytes"):
        RunState.from_account(good + b"\0")


@settings(max_examples=60, deadline=None)
@given(data=st.data(), capacity=st.sampled_from([1, 2, 16]))
def test_arbitrary_bytes_never_crash_a_snapshot(data: st.DataObject, capacity: int) -> None:
    size = layout.run_state_size(capacity)
    raw = bytearray(data.draw(st.binary(min_size=size, max_size=size)))
    raw[:8] = layout.DISCRIMINATOR
    view = np.frombuffer(raw, dtype=layout.run_state_dtype(capacity))
    view["header"]["version"], view["header"]["capacity"] = layout.VERSION, capacity
    if data.draw(st.booleans()):  # else nearly every example fails on the first range
        header = view["header"][0]
        header["phase"] %= 8
        header["open"] %= 4
        header["returned_len"] %= capacity + 1
        header["config"]["max_tier"] %= 3
        header["rounds"]["num_fills"] %= 9
        header["rounds"]["status"] %= 4
        header["checkpoint"]["uri_len"] %= 129
        header["pending"]["uri_len"] %= 129
        view["slots"]["status"] %= 4
    try:
        state = RunState.from_account(bytes(raw))
    except DecodeError:
        return
    for name in ("rounds", "slots", "attestations", "returned", "checkpoint", "pending", "config"):
        getattr(state, name)
    assert all(max(r.assigned, default=0) < capacity for r in state.rounds)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=700), name=st.sampled_from(NAMES))
def test_arbitrary_bytes_never_crash_a_borsh_account(data: bytes, name: str) -> None:
    for account, discriminator in program(name).discriminators.items():
        for candidate in (data, discriminator + data):
            try:
                program(name).decode(account, candidate)
            except DecodeError:
                continue


@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_never_crash_raw_accounts(data: bytes) -> None:
    disc = program("coordinator").discriminators["Spec"]
    for decode, owner, raw in (
        (accounts.decode_spec, ids.COORDINATOR_ID, disc + data),
        (accounts.decode_mint, ids.TOKEN_ID, data),
        (accounts.token_amount, ids.TOKEN_ID, data),
    ):
        try:
            decode(Account(KEY, owner, 1, raw, 1))
        except DecodeError:
            continue


@given(slots=st.sets(st.integers(0, 255)))
def test_bits_round_trip(slots: set[int]) -> None:
    assert bits_to_set(np.frombuffer(set_to_bits(slots), dtype="<u8")) == slots
