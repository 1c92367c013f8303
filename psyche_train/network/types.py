"""What users of the peer network see: its configuration, its members, its status and its errors.

Error tree: NetworkError (a user can act on it)
              ├── FetchError   a blob did not arrive in time; names every peer asked and why it failed
              └── NetworkDown  the network process cannot be started at all
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import base58

KEY_BYTES = 32
NOWHERE = "none"
"""Instead of an address: listen on nothing, or announce nothing."""
MAX_ADDRS = 8
"""Addresses of one member that are dialled; a Membership holds at most 128 characters of them."""


def libp2p_id(key: bytes) -> str:
    """The peer id of an ed25519 public key, as all libp2p software shows it (libp2p's specification, peer-ids)."""
    # the identity multihash of a protobuf with key type and key
    return base58.b58encode(b"\x00\x24\x08\x01\x12\x20" + key).decode()


class NetworkError(Exception):
    """Something about the peer network that a user can act on."""


class NetworkDown(NetworkError):
    """The network process does not start; the message quotes its last words."""


class FetchError(NetworkError):
    """A blob could not be fetched.

    Attributes:
        blob: its id.
        peers: public key of every peer that was asked or considered -> why it did not deliver.
    """

    def __init__(self, blob: bytes, why: str, peers: Mapping[bytes, str]) -> None:
        self.blob = blob
        self.why = why
        self.peers = dict(peers)
        tried = "; ".join(f"peer {key.hex()[:16]}: {reason}" for key, reason in self.peers.items())
        super().__init__(f"blob {blob.hex()} was not fetched: {why}. Tried: {tried or 'nobody'}")


@dataclass(frozen=True, slots=True)
class Peer:
    """A member as the chain lists it."""

    key: bytes
    """ed25519 public key, 32 bytes; the libp2p identity is derived from it."""
    addrs: tuple[str, ...]
    """Multiaddrs where it may be dialled, TCP only; may be empty."""
    slot: int

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"a peer's key has {KEY_BYTES} bytes, this one {len(self.key)}")


@dataclass(frozen=True, slots=True)
class PushLimits:
    """What this member takes from members that nobody can dial."""

    blob_bytes: int = 1 << 30
    """Longest blob."""
    member_bytes: int = 4 << 30
    """All blobs of one member together."""
    reserve_bytes: int = 1 << 30
    """Of the disk, that stay free."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Everything the network process needs to start.

    `seed` is secret and leaves this process only over the private socket, never on a command line.
    """

    seed: bytes = field(repr=False)
    """ed25519 seed of this member, 32 bytes."""
    topic: str
    """Name of the gossip topic: one a run."""
    blob_dir: Path
    log_path: Path
    """The member's own RecordLog; only read here."""
    socket_path: Path
    """Unix socket between the client and the process; `network.log` is written beside it."""
    listen: str = "/ip4/127.0.0.1/tcp/0"
    """Where to accept connections; `NOWHERE` for a member that only dials out."""
    announce: tuple[str, ...] = ()
    """Addresses to report instead of those listened on, for a member behind a forwarded port."""

    replicas: int = 2
    """Members that hold a copy of each blob while nobody can dial this one."""
    push_limits: PushLimits = PushLimits()

    def __post_init__(self) -> None:
        if len(self.seed) != KEY_BYTES:
            raise ValueError(f"the peer seed has {KEY_BYTES} bytes, this one {len(self.seed)}")
        if not 1 <= len(self.topic) <= 200:
            raise ValueError(f"the gossip topic has {len(self.topic)} characters, allowed 1..200")


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    """A snapshot of the network process."""

    running: bool
    """Whether the process answers now."""
    connected: tuple[bytes, ...]
    """Public keys of the members with a live connection."""
    bytes_in: int
    """Bytes read from sockets since the process last started."""
    bytes_out: int
    restarts: int
    """How often the process was started again."""
    unreachable: Mapping[bytes, str] = field(default_factory=dict)
    """Members without a connection -> who, which address, why, and what to try."""
    dialable: bool | None = None
    """Whether others can dial this member; None while nobody could be asked."""
    unpushed: int = 0
    """Blobs of this member, if nobody can dial it, that too few others hold so far."""
