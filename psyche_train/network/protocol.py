"""The socket protocol between a client and its network process: typed, length-prefixed, validated.

A frame is `header bytes u32 | body bytes u32 | header | body` (little-endian). The header is one JSON object
whose `kind` names a message below; keys and hashes are hexadecimal. The body carries what is binary: the
secret seed of `hello`, the records of `records`.

Requests that expect an answer carry a `request` number; `done`, `failed`, `records` and `state` repeat it.
Losing the connection means that the other process is gone: the client starts it again and repeats what
is open.
"""

from __future__ import annotations

import json
import struct
from typing import Annotated, Literal

import trio
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_HEADER_BYTES = 1 << 20
MAX_BODY_BYTES = 64 << 20
_PREFIX = struct.Struct("<II")
_READ_BYTES = 256 * 1024

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Request = Annotated[int, Field(ge=0, lt=2**53)]
Addr = Annotated[str, Field(max_length=256)]


class ProtocolError(ValueError):
    """The other side of the socket sent a frame that the protocol does not know."""


class Message(BaseModel):
    """Base of all messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class MemberEntry(Message):
    key: Hex32
    addrs: list[Addr]
    slot: Count


class Hello(Message):
    """First frame to the process; the body is the 32-byte seed."""

    kind: Literal["hello"] = "hello"
    topic: str
    listen: str
    announce: list[Addr]
    blob_dir: str
    log_path: str
    replicas: Count
    push_blob_bytes: Count
    push_member_bytes: Count
    push_reserve_bytes: Count


class Members(Message):
    """Replaces the member table: connections of all others are closed."""

    kind: Literal["members"] = "members"
    members: list[MemberEntry]


class Reveal(Message):
    """Blobs hidden until this round or an earlier one may be served."""

    kind: Literal["reveal"] = "reveal"
    round: Annotated[int, Field(ge=-1, lt=2**63)]


class Published(Message):
    """A blob is in the store: tell the others once it may be served."""

    kind: Literal["published"] = "published"
    blob: Hex32


class Fetch(Message):
    kind: Literal["fetch"] = "fetch"
    request: Request
    blob: Hex32
    deadline_s: Annotated[float, Field(ge=0, le=1e7)]
    max_bytes: Count
    holders: list[Hex32]
    urgent: bool | None = None
    """An update; None: what is longer than one range is bulk."""


class FetchLog(Message):
    kind: Literal["fetch_log"] = "fetch_log"
    request: Request
    after: Hex32
    deadline_s: Annotated[float, Field(ge=0, le=1e7)]
    peers: list[Hex32] = []


class Cancel(Message):
    """The answer to this request is no longer wanted."""

    kind: Literal["cancel"] = "cancel"
    request: Request


class Ask(Message):
    """Ask for `state`; also the heartbeat."""

    kind: Literal["ask"] = "ask"
    request: Request


class Stop(Message):
    """Close all connections and exit."""

    kind: Literal["stop"] = "stop"


class Ready(Message):
    """The process listens."""

    kind: Literal["ready"] = "ready"
    addresses: list[Addr]


class Done(Message):
    """A fetched blob is in the store."""

    kind: Literal["done"] = "done"
    request: Request


class Records(Message):
    """Candidate chains; the body is all records, `chains` says which bytes form which."""

    kind: Literal["records"] = "records"
    request: Request
    chains: list[list[Count]]


class Failed(Message):
    kind: Literal["failed"] = "failed"
    request: Request
    why: str
    peers: dict[Hex32, str] = {}


class State(Message):
    kind: Literal["state"] = "state"
    request: Request
    connected: list[Hex32]
    bytes_in: Count
    bytes_out: Count
    unreachable: dict[Hex32, str]
    dialable: bool | None = None
    unpushed: Count = 0


ToProcess = Hello | Members | Reveal | Published | Fetch | FetchLog | Cancel | Ask | Stop
ToClient = Ready | Done | Records | Failed | State
AnyMessage = ToProcess | ToClient
_ADAPTER: TypeAdapter[AnyMessage] = TypeAdapter(Annotated[AnyMessage, Field(discriminator="kind")])


def encode(message: Message, body: bytes = b"") -> bytes:
    """One frame; ProtocolError if it is larger than the other side accepts."""
    header = message.model_dump_json().encode()
    if len(header) > MAX_HEADER_BYTES or len(body) > MAX_BODY_BYTES:
        raise ProtocolError(f"frame too large: header {len(header)}, body {len(body)} bytes")
    return _PREFIX.pack(len(header), len(body)) + header + body


def decode_header(header: bytes) -> AnyMessage:
    """The message of a header; ProtocolError for anything else."""
    try:
        return _ADAPTER.validate_python(json.loads(header))
    except (ValidationError, ValueError, RecursionError) as exc:
        raise ProtocolError(f"unknown message on the network socket: {exc}") from exc


class Channel:
    """Frames over one Unix socket; any number of tasks may send, one receives."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._sending = trio.Lock()
        self._buffer = bytearray()

    async def send(self, message: Message, body: bytes = b"") -> None:
        """Send one frame.

        A cancelled send is finished or the channel is closed: half a frame is never followed by another.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the other process is gone.
        """
        frame = encode(message, body)
        async with self._sending:
            try:
                await self._stream.send_all(frame)
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(self._stream)
                raise

    async def receive(self) -> tuple[AnyMessage, bytes] | None:
        """The next message and its body, or None at the end.

        Raises:
            ProtocolError: a malformed frame; the channel cannot be used any more.
            trio.BrokenResourceError, trio.ClosedResourceError: the connection broke.
        """
        prefix = await self._exactly(_PREFIX.size)
        if prefix is None:
            return None
        header_bytes, body_bytes = _PREFIX.unpack(prefix)
        if header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
            raise ProtocolError(f"frame announces header {header_bytes}, body {body_bytes} bytes")
        header = await self._exactly(header_bytes)
        body = await self._exactly(body_bytes)
        if header is None or body is None:
            raise ProtocolError("the network socket ended inside a frame")
        return decode_header(header), body

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()

    async def _exactly(self, count: int) -> bytes | None:
        while len(self._buffer) < count:
            data = await self._stream.receive_some(_READ_BYTES)
            if not data:
                if self._buffer:
                    raise ProtocolError("the network socket ended inside a frame")
                return None
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken
