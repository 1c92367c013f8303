"""Decoders of untrusted bytes: they return a value that encodes back, or their own error, never another."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from psyche_train.network import gossip, protocol, wire
from psyche_train.network.identity import dialable
from psyche_train.network.protocol import Channel, ProtocolError
from psyche_train.network.wire import BlobRequest, LogRequest, Reply, Status, WireError

hashes = st.binary(min_size=32, max_size=32)
u32 = st.integers(0, 2**32 - 1)


@given(hashes, st.integers(0, 2**64 - 1), st.integers(1, wire.MAX_RANGE_BYTES), st.booleans())
def test_blob_request_round_trips(blob: bytes, offset: int, length: int, manifest: bool) -> None:
    request = BlobRequest(blob, offset, length, manifest)
    assert BlobRequest.from_bytes(request.to_bytes()) == request


@given(hashes, st.integers(0, wire.MAX_LOG_RECORDS), st.integers(0, wire.MAX_LOG_BYTES))
def test_log_request_round_trips(after: bytes, records: int, size: int) -> None:
    request = LogRequest(after, records, size)
    assert LogRequest.from_bytes(request.to_bytes()) == request


@given(st.sampled_from([BlobRequest, LogRequest, Reply]), st.binary(max_size=60))
def test_wire_decoders_refuse_or_return(kind: Any, raw: bytes) -> None:
    try:
        value = kind.from_bytes(raw)
    except WireError:
        return
    assert len(value.to_bytes()) == len(raw)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (struct.pack("<BB32sQI", 2, 0, bytes(32), 0, 1), "version 2"),
        (struct.pack("<BB32sQI", 1, 2, bytes(32), 0, 1), "flags 2"),
        (struct.pack("<BB32sQI", 1, 0, bytes(32), 0, 0), "for 0 bytes"),
        (struct.pack("<BB32sQI", 1, 0, bytes(32), 0, 4 * 2**20 + 1), "for 4194305 bytes"),
        (bytes(45), "of 45 bytes"),
    ],
)
def test_blob_request_with_one_wrong_field_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(WireError, match=why):
        BlobRequest.from_bytes(raw)


@given(st.sampled_from(list(Status)), u32, u32)
def test_refusals_carry_no_bytes(status: Status, first: int, second: int) -> None:
    raw = struct.pack("<BII", status, first, second)
    if status is Status.OK or (first, second) == (0, 0):
        assert Reply.from_bytes(raw) == Reply(status, first, second)
    else:
        with pytest.raises(WireError, match="announces"):
            Reply.from_bytes(raw)


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(0, 25), st.integers(0, 500))
def test_packed_records_are_a_prefix_within_the_limits(
    records: list[bytes], most: int, max_bytes: int
) -> None:
    count, body = wire.pack_records(records, most, max_bytes)
    assert count <= most
    assert len(body) <= max_bytes
    assert wire.unpack_records(count, body) == records[:count]


@given(st.integers(0, 2000), st.binary(max_size=200))
def test_unpack_records_refuses_or_uses_every_byte(count: int, body: bytes) -> None:
    try:
        records = wire.unpack_records(count, body)
    except WireError:
        return
    assert sum(4 + len(record) for record in records) == len(body)
    assert len(records) == count


@given(st.lists(hashes, min_size=1, max_size=gossip.IDS_PER_MESSAGE))
def test_gossip_of_held_blobs_round_trips_below_one_kilobyte(blobs: list[bytes]) -> None:
    raw = gossip.encode_hold(blobs)
    assert len(raw) < 1000
    assert gossip.decode(raw) == blobs


@given(st.binary(max_size=1200))
def test_gossip_decoder_refuses_or_returns_bounded_items(raw: bytes) -> None:
    try:
        items = gossip.decode(raw)
    except gossip.GossipError:
        return
    assert 1 <= len(items) <= gossip.IDS_PER_MESSAGE


@given(st.binary(max_size=32), st.lists(hashes, max_size=6))
def test_holders_stay_bounded(member: bytes, blobs: list[bytes]) -> None:
    holders = gossip.Holders()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gossip, "MAX_PER_MEMBER", 3)
        patch.setattr(gossip, "MAX_BLOBS", 4)
        for blob in blobs:
            holders.add(member, blob)
            assert holders.of(blob) == [member]
    assert sum(bool(holders.of(blob)) for blob in set(blobs)) <= 3


@given(st.text(max_size=60))
def test_addresses_from_strangers_parse_or_are_refused(text: str) -> None:
    try:
        parsed = dialable(text)
    except ValueError:
        return
    assert str(parsed).count("/tcp/") == 1


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("/ip4/1.2.3.4/tcp/5", "/ip4/1.2.3.4/tcp/5"),
        ("/dns4/example.org/tcp/5", "/dns4/example.org/tcp/5"),
        ("/ip6/::1/tcp/5/p2p/12D3KooWSXdVD6y6zg28gXAnEU1CyofLSgdKbxN6z4ShjUj4XuYs", "/ip6/::1/tcp/5"),
        ("/ip4/1.2.3.4/udp/5/quic-v1", None),
        ("/ip4/1.2.3.4/tcp/0", None),
        ("/ip4/1.2.3.4/tcp/5/ws", None),
        ("/unix/tmp/x", None),
        ("", None),
    ],
)
def test_only_tcp_addresses_are_dialled(text: str, result: str | None) -> None:
    if result is None:
        with pytest.raises(ValueError, match="address"):
            dialable(text)
    else:
        assert str(dialable(text)) == result


hex32 = hashes.map(bytes.hex)
messages = st.one_of(
    st.builds(
        protocol.Hello,
        topic=st.text(max_size=20), listen=st.text(max_size=20), announce=st.lists(st.text(max_size=9)),
        blob_dir=st.text(max_size=20), log_path=st.text(max_size=20),
    ),
    st.builds(
        protocol.Fetch,
        request=st.integers(0, 2**53 - 1), blob=hex32, deadline_s=st.floats(0, 1e7),
        max_bytes=st.integers(0, 2**63 - 1), holders=st.lists(hex32, max_size=3),
    ),
    st.builds(
        protocol.Failed,
        request=st.integers(0, 9), why=st.text(), peers=st.dictionaries(hex32, st.text(), max_size=2),
    ),
    st.builds(protocol.Records, request=st.just(1), chains=st.lists(st.lists(st.integers(0, 9)))),
    st.builds(protocol.Reveal, round=st.integers(-1, 2**63 - 1)),
    st.just(protocol.Stop()),
)  # fmt: skip


def through_a_socket(raw: bytes, chunk: int) -> list[Any]:
    """What a channel receives when these bytes arrive in chunks and the other side closes."""

    async def run() -> list[Any]:
        ours, theirs = trio.testing.memory_stream_pair()
        channel, received = Channel(ours), []
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                for start in range(0, len(raw), chunk):
                    await theirs.send_all(raw[start : start + chunk])
                await theirs.aclose()

            nursery.start_soon(write)
            try:
                while (frame := await channel.receive()) is not None:
                    received.append(frame)
            except ProtocolError as exc:
                received.append(exc)
            nursery.cancel_scope.cancel()
        return received

    return trio.run(run)


@given(st.lists(st.tuples(messages, st.binary(max_size=50)), max_size=4), st.integers(1, 400))
def test_frames_arrive_whole_however_they_are_cut(frames: list[Any], chunk: int) -> None:
    raw = b"".join(protocol.encode(message, body) for message, body in frames)
    assert through_a_socket(raw, chunk) == frames


@given(st.binary(max_size=200), st.integers(1, 64))
def test_garbage_on_the_socket_is_a_protocol_error(raw: bytes, chunk: int) -> None:
    for item in through_a_socket(raw, chunk):
        assert isinstance(item, ProtocolError | tuple)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))
def test_headers_that_are_no_message_are_refused(value: Any) -> None:
    with pytest.raises(ProtocolError):
        protocol.decode_header(json.dumps({"kind": "fetch", "request": value}).encode())


@pytest.mark.parametrize("prefix", [(2**20 + 1, 0), (10, 2**26 + 1), (2**32 - 1, 2**32 - 1)])
def test_oversized_frames_are_refused_before_they_are_read(prefix: tuple[int, int]) -> None:
    (error,) = through_a_socket(struct.pack("<II", *prefix), 8)
    assert "frame announces" in str(error)
