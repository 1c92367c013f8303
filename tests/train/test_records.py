"""The record of a round: golden bytes shared with the program, total decoding, the log file."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyche_train.records import GENESIS, Accepted, RecordError, RecordLog, RoundRecord, verify_chain


def golden_record() -> RoundRecord:
    """The fixed example that the Rust tests use as well."""
    assigned = bytearray(32)
    for slot in (0, 2, 9, 255):
        assigned[slot // 8] |= 1 << (slot % 8)
    return RoundRecord(
        epoch=3,
        number=41,
        step=37,
        trained=True,
        seed=bytes(range(32)),
        data_index=1_000_003,
        samples=96,
        assigned=bytes(assigned),
        spec_hash=bytes(range(64, 96)),
        accepted=(
            Accepted(0, 0, 1, bytes([0xA0] * 32)),
            Accepted(9, 1, 513, bytes([0xA9] * 32)),
            Accepted(255, 2, 7, bytes([0xFF] * 32)),
        ),
    )


GOLDEN_HISTORY = bytes(range(128, 160))
GOLDEN_NEXT = "ba75ee8e3588f9becc6697dfa40a946a68e2b5497b3785244e38271a0e3d3761"


def test_history_of_the_golden_record_is_frozen():
    record = golden_record()
    preimage = record.preimage(GOLDEN_HISTORY)
    assert preimage[:32] == GOLDEN_HISTORY
    assert len(preimage) == 32 + 8 * 3 + 1 + 32 + 8 + 4 + 32 + 32 + 2 + 3 * 37
    assert record.next_history(GOLDEN_HISTORY) == hashlib.sha256(preimage).digest()
    assert record.next_history(GOLDEN_HISTORY).hex() == GOLDEN_NEXT


def test_history_of_an_empty_round_differs_from_the_history_before():
    record = replace(golden_record(), accepted=(), trained=False, samples=0, assigned=bytes(32))
    assert record.next_history(GENESIS) != GENESIS


def test_record_round_trips():
    record = golden_record()
    assert RoundRecord.from_bytes(record.to_bytes()) == record


@given(st.binary(max_size=400))
def test_decoding_arbitrary_bytes_gives_a_record_or_record_error(data: bytes):
    try:
        record = RoundRecord.from_bytes(data)
    except RecordError:
        return
    assert record.to_bytes() == data


@given(st.integers(0, 300), st.integers(0, 255))
def test_decoding_mutated_bytes_gives_a_record_or_record_error(at: int, value: int):
    data = bytearray(golden_record().to_bytes())
    data[at % len(data)] = value
    try:
        record = RoundRecord.from_bytes(bytes(data))
    except RecordError:
        return
    assert record.to_bytes() == bytes(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": -1}, "epoch"),
        ({"samples": 2**32}, "samples"),
        ({"seed": b"short"}, "seed"),
        ({"accepted": (Accepted(1, 0, 1, bytes(32)),)}, "not assigned"),
        ({"accepted": (Accepted(9, 0, 1, bytes(32)), Accepted(0, 0, 1, bytes(32)))}, "ascending"),
        ({"trained": False}, "not trained"),
    ],
)
def test_record_with_an_impossible_field_is_refused(change: dict, message: str):
    with pytest.raises(RecordError, match=message):
        replace(golden_record(), **change)


def chain(num: int, start: bytes = GENESIS, first: int = 1) -> list[tuple[bytes, RoundRecord]]:
    """`num` records in a row with the history before each."""
    entries, history = [], start
    for number in range(first, first + num):
        record = replace(golden_record(), number=number)
        entries.append((history, record))
        history = record.next_history(history)
    return entries


def filled(path: Path, entries: list[tuple[bytes, RoundRecord]]) -> RecordLog:
    log = RecordLog(path)
    for history, record in entries:
        log.append(history, record)
    return log


def test_log_returns_what_follows_a_history_after_reopening(tmp_path: Path):
    entries = chain(5)
    filled(tmp_path / "records.log", entries)
    log = RecordLog(tmp_path / "records.log")
    assert log.after(GENESIS) == [record for _, record in entries]
    assert log.after(entries[3][0]) == [record for _, record in entries[3:]]
    assert log.after(bytes([9] * 32)) == []
    assert log.head is not None
    assert verify_chain(GENESIS, log.after(GENESIS), log.head)


def test_log_append_is_idempotent_and_refuses_a_fork(tmp_path: Path):
    entries = chain(3)
    log = filled(tmp_path / "log", entries)
    log.append(*entries[1])
    assert len(log) == 3
    with pytest.raises(RecordError, match="rewind"):
        log.append(entries[1][0], replace(golden_record(), number=77))


@pytest.mark.parametrize("cut", [1, 7, 40, 44, 100])
def test_log_with_a_torn_tail_keeps_the_whole_records(tmp_path: Path, cut: int):
    entries = chain(3)
    path = tmp_path / "log"
    filled(path, entries)
    path.write_bytes(path.read_bytes()[:-cut])
    log = RecordLog(path)
    assert log.after(GENESIS) == [record for _, record in entries[:2]]
    log.append(*entries[2])
    assert RecordLog(path).after(GENESIS) == [record for _, record in entries]


def test_log_with_a_flipped_byte_stops_before_it(tmp_path: Path):
    entries = chain(3)
    path = tmp_path / "log"
    filled(path, entries)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert len(RecordLog(path)) == 1


def test_read_only_log_follows_appends_and_rewinds(tmp_path: Path):
    path = tmp_path / "log"
    reader = RecordLog(path, read_only=True)
    assert reader.after(GENESIS) == []
    entries = chain(4)
    writer = filled(path, entries)
    assert len(reader.after(GENESIS)) == 4
    writer.rewind_to(entries[2][0])
    assert reader.after(GENESIS) == [record for _, record in entries[:2]]
    branch = replace(golden_record(), number=90)
    writer.append(entries[2][0], branch)
    assert reader.after(GENESIS)[-1] == branch
    with pytest.raises(RecordError, match="read-only"):
        reader.append(GENESIS, branch)


def test_log_keeps_a_later_chain_beside_an_earlier_one(tmp_path: Path):
    early, late = chain(2), chain(2, start=bytes([7] * 32), first=50)
    log = filled(tmp_path / "log", early + late)
    assert log.after(GENESIS) == [record for _, record in early]
    assert log.after(bytes([7] * 32)) == [record for _, record in late]
    log.rewind_to(late[1][0])
    assert log.after(GENESIS) == []
    assert log.after(bytes([7] * 32)) == [late[0][1]]
