"""Member keys, libp2p identities and addresses."""

from __future__ import annotations

import socket

from libp2p.crypto.ed25519 import Ed25519PublicKey, create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.peer.id import ID
from multiaddr import Multiaddr


def key_pair_of(seed: bytes) -> KeyPair:
    """The libp2p key pair of a 32-byte ed25519 seed."""
    return create_new_key_pair(seed)


def peer_id_of(key: bytes) -> ID | None:
    """The libp2p identity of a 32-byte public key, or None if the bytes are no key."""
    try:
        return ID.from_pubkey(Ed25519PublicKey.from_bytes(key))
    except Exception:  # the library names no errors
        return None


def dialable(addr: str) -> Multiaddr:
    """An address to dial, without a trailing `/p2p/...` (the key is known from the chain).

    Raises:
        ValueError: not a TCP address of an IPv4 or IPv6 host or a DNS name.
    """
    try:
        parsed = Multiaddr(addr)
        names = [protocol.name for protocol in parsed.protocols()]
        if len(names) == 3 and names[2] == "p2p":
            parsed = parsed.decapsulate(Multiaddr(f"/p2p/{parsed.value_for_protocol('p2p')}"))
            names.pop()
        port = int(parsed.value_for_protocol("tcp") or 0)
    except Exception as exc:  # the parser raises a dozen kinds for text that a stranger wrote
        raise ValueError(f"address {addr!r} is not a multiaddr: {exc}") from exc
    if len(names) != 2 or names[0] not in {"ip4", "ip6", "dns", "dns4", "dns6"} or names[1] != "tcp":
        raise ValueError(f"address {addr!r} is not /ip4|ip6|dns/<host>/tcp/<port>")
    if not 1 <= port <= 65535:
        raise ValueError(f"address {addr!r} has no port")
    return parsed


def reported(addresses: list[Multiaddr]) -> list[str]:
    """Listening addresses as others can use them: a wildcard becomes this machine's outgoing address."""
    result: list[str] = []
    for address in addresses:
        text = str(address)
        for wildcard, family, probe in (
            ("/ip4/0.0.0.0/", socket.AF_INET, "192.0.2.1"),
            ("/ip6/::/", socket.AF_INET6, "2001:db8::1"),
        ):
            if text.startswith(wildcard):
                text = text.replace(wildcard, f"{wildcard[:5]}{_outgoing(family, probe)}/", 1)
        if text not in result:
            result.append(text)
    return result


def _outgoing(family: socket.AddressFamily, probe: str) -> str:
    """Address that the routing table would use towards `probe`; no packet is sent."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((probe, 9))
            return str(sock.getsockname()[0])
        except OSError:
            return "127.0.0.1" if family == socket.AF_INET else "::1"


def check_free(listen: Multiaddr) -> None:
    """Make sure that nobody listens there: the library's SO_REUSEPORT would silently share the port.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    port = int(listen.value_for_protocol("tcp") or 0)
    if port:
        family = socket.AF_INET6 if str(listen).startswith("/ip6/") else socket.AF_INET
        host = str(listen).split("/")[2]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as exc:
                raise OSError(exc.errno, f"cannot listen on {listen}: {exc.strerror}") from None
