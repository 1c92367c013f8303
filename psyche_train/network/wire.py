"""Bytes on the wire of `/psyche/blob/1` and `/psyche/log/1`; pure, total decoders for untrusted input.

A stream carries requests one after another until the requester closes it. Every answer is length-prefixed, so
that its end never depends on an end of file (py-libp2p reports a killed peer as a clean end).

`/psyche/blob/1`  request  version u8 | flags u8 (bit 0: manifest wanted) | id[32] | offset u64 | length u32
                  answer   status u8 | manifest bytes u32 | data bytes u32 | manifest | data
`/psyche/log/1`   request  version u8 | history[32] | most records u32 | most bytes u32
                  answer   status u8 | records u32 | body bytes u32 | (length u32 | record) ...
`/psyche/push/1`  request  version u8 | flags u8 (bit 0: an update) | id[32] | length u64 | hidden until i64
                  answer   status u8 | 0 u32 | 0 u32, and again when the receiver has fetched the blob or given up
`/psyche/reach/1` request  version u8 | addresses' bytes u16 | addresses, one a line
                  answer   status u8 | addresses u32 | body bytes u32 | a line each: empty, or why not
`/psyche/ping/1`  request  16 bytes; answer: the same

All integers are little-endian. `hidden until` is the round that has to be revealed before the receiver may
serve the blob, -1 if none.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

BLOB_PROTOCOL = "/psyche/blob/1"
LOG_PROTOCOL = "/psyche/log/1"
PUSH_PROTOCOL = "/psyche/push/1"
REACH_PROTOCOL = "/psyche/reach/1"
PING_PROTOCOL = "/psyche/ping/1"
VERSION = 1
PING_BYTES = 16
MAX_RANGE_BYTES = 4 * 1024 * 1024
"""Most bytes of one answer: a requester asks again, which is the flow control."""
MAX_LOG_RECORDS = 1024
MAX_LOG_BYTES = 4 * 1024 * 1024
MAX_REACH_BYTES = 2048

_BLOB_REQUEST = struct.Struct("<BB32sQI")
_LOG_REQUEST = struct.Struct("<B32sII")
_OFFER = struct.Struct("<BB32sQq")
_REACH = struct.Struct("<BH")
_REPLY = struct.Struct("<BII")
_LENGTH = struct.Struct("<I")
BLOB_REQUEST_BYTES = _BLOB_REQUEST.size
LOG_REQUEST_BYTES = _LOG_REQUEST.size
OFFER_BYTES = _OFFER.size
REACH_BYTES = _REACH.size
REPLY_BYTES = _REPLY.size


class WireError(ValueError):
    """A peer sent something that the protocol does not allow."""


class Status(IntEnum):
    """First byte of every answer."""

    OK = 0
    NOT_FOUND = 1
    HIDDEN = 2
    BAD_REQUEST = 3
    BUSY = 4
    FAILED = 5
    TOO_LARGE = 6
    FULL = 7

    @property
    def reason(self) -> str:
        """Why, for an error message."""
        return {
            Status.OK: "ok",
            Status.NOT_FOUND: "does not hold it",
            Status.HIDDEN: "does not show it before its round is revealed",
            Status.BAD_REQUEST: "calls the request invalid",
            Status.BUSY: "is busy",
            Status.FAILED: "cannot read its disk",
            Status.TOO_LARGE: "takes no blob of that size",
            Status.FULL: "has no room for more of ours",
        }[self]


@dataclass(frozen=True, slots=True)
class BlobRequest:
    """Ask for `length` bytes of a blob from `offset`, and for its manifest if wanted."""

    blob: bytes
    offset: int
    length: int
    want_manifest: bool

    def to_bytes(self) -> bytes:
        return _BLOB_REQUEST.pack(VERSION, self.want_manifest, self.blob, self.offset, self.length)

    @classmethod
    def from_bytes(cls, raw: bytes) -> BlobRequest:
        """Decode; WireError for anything but a request with 1..4 MiB asked for."""
        if len(raw) != BLOB_REQUEST_BYTES:
            raise WireError(f"blob request of {len(raw)} bytes, expected {BLOB_REQUEST_BYTES}")
        version, flags, blob, offset, length = _BLOB_REQUEST.unpack(raw)
        if version != VERSION or flags > 1:
            raise WireError(f"blob request version {version} flags {flags}, known: version {VERSION}")
        if not 1 <= length <= MAX_RANGE_BYTES:
            raise WireError(f"blob request for {length} bytes, allowed 1..{MAX_RANGE_BYTES}")
        return cls(blob, offset, length, bool(flags))


@dataclass(frozen=True, slots=True)
class LogRequest:
    """Ask for round records that follow a history."""

    after: bytes
    max_records: int
    max_bytes: int

    def to_bytes(self) -> bytes:
        return _LOG_REQUEST.pack(VERSION, self.after, self.max_records, self.max_bytes)

    @classmethod
    def from_bytes(cls, raw: bytes) -> LogRequest:
        """Decode; WireError for anything else. Limits above this side's own are lowered to them."""
        if len(raw) != LOG_REQUEST_BYTES:
            raise WireError(f"log request of {len(raw)} bytes, expected {LOG_REQUEST_BYTES}")
        version, after, records, size = _LOG_REQUEST.unpack(raw)
        if version != VERSION:
            raise WireError(f"log request version {version}, known: {VERSION}")
        return cls(after, min(records, MAX_LOG_RECORDS), min(size, MAX_LOG_BYTES))


@dataclass(frozen=True, slots=True)
class Offer:
    """Ask a member to hold a blob: it fetches it from the one who offers, if it will."""

    blob: bytes
    length: int
    hidden_until: int | None
    urgent: bool

    def to_bytes(self) -> bytes:
        hidden = -1 if self.hidden_until is None else self.hidden_until
        return _OFFER.pack(VERSION, self.urgent, self.blob, self.length, hidden)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Offer:
        """Decode; WireError for anything else."""
        if len(raw) != OFFER_BYTES:
            raise WireError(f"offer of {len(raw)} bytes, expected {OFFER_BYTES}")
        version, flags, blob, length, hidden = _OFFER.unpack(raw)
        if version != VERSION or flags > 1 or hidden < -1:
            raise WireError(f"offer version {version} flags {flags} round {hidden}, known: version {VERSION}")
        return cls(blob, length, None if hidden == -1 else hidden, bool(flags))


def pack_reach(addresses: list[str]) -> bytes:
    """Ask a member to dial these addresses."""
    body = "\n".join(addresses).encode()[:MAX_REACH_BYTES]
    return _REACH.pack(VERSION, len(body)) + body


def reach_body_bytes(head: bytes) -> int:
    """Length of what follows the head of a reach request; WireError for another version or too much."""
    if len(head) != REACH_BYTES:
        raise WireError(f"reach request of {len(head)} bytes, expected {REACH_BYTES}")
    version, size = _REACH.unpack(head)
    if version != VERSION or size > MAX_REACH_BYTES:
        raise WireError(f"reach request version {version} of {size} bytes, known: version {VERSION}")
    return int(size)


def unpack_lines(body: bytes) -> list[str]:
    """Lines of printable ASCII; WireError for anything else."""
    try:
        lines = body.decode("ascii").split("\n")
    except UnicodeDecodeError as exc:
        raise WireError("lines are not ASCII") from exc
    if not all(line.isprintable() for line in lines):
        raise WireError("lines are not printable")
    return lines


@dataclass(frozen=True, slots=True)
class Reply:
    """Head of an answer. `first` and `second`: manifest and data bytes, or record count and body bytes."""

    status: Status
    first: int = 0
    second: int = 0

    def to_bytes(self) -> bytes:
        return _REPLY.pack(self.status, self.first, self.second)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Reply:
        """Decode; WireError for an unknown status, or a refusal that announces bytes."""
        if len(raw) != REPLY_BYTES:
            raise WireError(f"answer head of {len(raw)} bytes, expected {REPLY_BYTES}")
        code, first, second = _REPLY.unpack(raw)
        try:
            status = Status(code)
        except ValueError:
            raise WireError(f"answer status {code} is unknown") from None
        if status is not Status.OK and (first or second):
            raise WireError(f"answer status {code} announces {first}+{second} bytes")
        return cls(status, first, second)


def pack_records(records: list[bytes], max_records: int, max_bytes: int) -> tuple[int, bytes]:
    """As many of the first records as the limits allow: (count, length-prefixed body)."""
    parts: list[bytes] = []
    size = 0
    for record in records[:max_records]:
        size += _LENGTH.size + len(record)
        if size > max_bytes:
            break
        parts.append(_LENGTH.pack(len(record)) + record)
    return len(parts), b"".join(parts)


def unpack_records(count: int, body: bytes) -> list[bytes]:
    """Inverse of `pack_records`; WireError unless the body is exactly `count` records."""
    if count > MAX_LOG_RECORDS or len(body) > MAX_LOG_BYTES:
        raise WireError(f"log answer of {count} records and {len(body)} bytes exceeds the limits")
    records, at = [], 0
    for _ in range(count):
        if at + _LENGTH.size > len(body):
            raise WireError("log answer ends inside a record")
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        if at + length > len(body):
            raise WireError("log answer ends inside a record")
        records.append(body[at : at + length])
        at += length
    if at != len(body):
        raise WireError(f"log answer has {len(body) - at} bytes too many")
    return records
