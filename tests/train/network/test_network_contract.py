"""What we rely on inside py-libp2p and noiseprotocol. When a test here fails after an upgrade, the named thing moved:
look at the module that uses it before changing the pin in pyproject.toml."""

from __future__ import annotations

import dis
import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio
from libp2p import new_host
from libp2p.abc import IMuxedConn, IMuxedStream, ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as noise_pair
from libp2p.io.exceptions import ConnectionClosedError, IOException
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise import io as noise_io
from libp2p.security.noise.patterns import PatternXX
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer import exceptions
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import HEADER_SIZE, MAX_MESSAGE_SIZE, Yamux
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.transport.tcp.tcp import TCP
from noise.connection import NoiseConnection

from psyche_train.network import session, streams
from psyche_train.network.mux import MUX_PROTOCOL, Muxer, MuxStream
from psyche_train.network.node import Node


def names_in(function: Any) -> set[str]:
    """Every attribute, global and string that a function mentions, inner functions included."""
    found: set[str] = set()
    codes = [inspect.unwrap(function).__code__]
    while codes:
        code = codes.pop()
        found |= {i.argval for i in dis.get_instructions(code) if isinstance(i.argval, str)}
        codes += [c for c in code.co_consts if inspect.iscode(c)]
    return found


def abstract(cls: Any) -> set[str]:
    return set(cls.__abstractmethods__)


def test_the_version_is_the_pinned_one() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    pins = [d for d in project["dependencies"] if d.split("==")[0].strip() == "libp2p"]
    assert pins == ["libp2p==0.8.1"], "the pin moved: go through this file, then change it here"
    assert version("libp2p") == "0.8.1", "another libp2p is installed than the one that was pinned and read"


def test_constants_of_the_wire() -> None:
    assert NOISE == "/noise"
    assert YAMUX == "/yamux/1.0.0"
    assert MUX_PROTOCOL == "/psyche/mux/1", "members of a run would fall back to Yamux"
    assert inspect.signature(PatternXX.__init__).parameters.keys() >= {"prologue", "early_data"}
    assert noise_io.SIZE_NOISE_MESSAGE_LEN == 2
    assert noise_io.BYTE_ORDER == "big"
    assert noise_io.MAX_PLAINTEXT_LENGTH == session.MAX_PLAINTEXT
    assert HEADER_SIZE == 12
    assert streams.FRAME_BYTES + HEADER_SIZE == noise_io.MAX_PLAINTEXT_LENGTH, (
        "writes no longer fill one message"
    )
    assert streams.FRAME_BYTES <= MAX_MESSAGE_SIZE - HEADER_SIZE, "writes no longer fit one Yamux frame"


def test_yamux_is_still_made_by_its_name_and_ours_by_its_class() -> None:
    """`new_conn` compares the protocol with `/yamux/1.0.0` and makes its own Yamux then: hence our own id."""
    used = names_in(MuxerMultistream.new_conn)
    assert {"PROTOCOL_ID", "Yamux"} <= used, (
        "the special case of /yamux/1.0.0 is gone: our id may not be needed"
    )
    selector = MuxerMultistream({MUX_PROTOCOL: Muxer, YAMUX: Yamux})
    assert list(selector.transports) == [MUX_PROTOCOL, YAMUX], "muxers are not offered in the order given"


def test_interfaces_that_we_implement() -> None:
    assert abstract(IMuxedConn) == {
        "__init__", "accept_stream", "close", "get_connection_type", "get_transport_addresses", "is_closed",
        "is_established", "is_initiator", "open_stream", "start",
    }, "IMuxedConn"  # fmt: skip
    assert abstract(IMuxedStream) == {
        "__aenter__", "close", "get_remote_address", "read", "reset", "set_deadline", "write",
    }, "IMuxedStream"  # fmt: skip
    assert abstract(ISecureConn) == {
        "close", "get_connection_type", "get_local_peer", "get_local_private_key", "get_remote_address",
        "get_remote_peer", "get_remote_public_key", "get_transport_addresses", "read", "write",
    }, "ISecureConn"  # fmt: skip
    assert not abstract(Muxer)
    assert not abstract(MuxStream)
    assert not abstract(session.NoiseSession)


def test_how_the_swarm_runs_a_muxer() -> None:
    used = names_in(Swarm.add_conn)
    assert {"start", "run_task", "event_started", "is_established", "is_closed"} <= used, "Swarm.add_conn"
    assert not hasattr(Muxer, "set_resource_scope"), "the swarm would hand it the connection's resources"
    assert not hasattr(Muxer, "_connected_event"), "the swarm would wait for it"
    assert not hasattr(Muxer, "_negotiation_semaphore"), "the host would take it"
    assert {"accept_stream", "MuxedConnUnavailable", "close"} <= names_in(SwarmConn._handle_new_streams), (
        "SwarmConn no longer closes itself when accept_stream says the connection is over"
    )
    assert "_on_muxed_conn_closed" in names_in(SwarmConn.__init__), "SwarmConn.__init__ sets on_close"
    assert {"MuxedStreamEOF", "MuxedStreamReset"} <= names_in(NetStream.read), "NetStream.read"
    assert {"MuxedStreamClosed", "MuxedStreamReset", "MuxedStreamError"} <= names_in(NetStream.write)
    assert "close_write" in names_in(NetStream.close_write), "NetStream.close_write no longer asks the stream"
    for name in ("MuxedStreamReset", "MuxedStreamEOF", "MuxedStreamClosed"):
        assert issubclass(getattr(exceptions, name), exceptions.MuxedStreamError), name
    assert issubclass(ConnectionClosedError, IOException), (
        "negotiation would not catch what our session raises"
    )


def test_what_the_tcp_transport_reads() -> None:
    assert inspect.signature(TCP._dial_resolved).parameters.keys() == {"self", "maddr", "source"}, (
        "TCP._dial_resolved"
    )
    assert len(inspect.signature(TCP.create_listener).parameters) == 2, "TCP.create_listener"
    assert inspect.signature(RawConnection.__init__).parameters.keys() >= {"stream", "initiator"}, (
        "RawConnection"
    )
    assert set(TrioTCPStream.__annotations__) >= {"stream", "read_lock", "write_lock"}, "TrioTCPStream"


def test_what_the_node_reads() -> None:
    node = Node(bytes(32), "/ip4/127.0.0.1/tcp/0")
    swarm = node.swarm
    assert type(swarm).__name__ == "Swarm"
    for name in (
        "auto_connector", "common_stream_handler", "dial_addr", "get_connections", "retry_config",
        "set_stream_handler", "unblock_peer",
    ):  # fmt: skip
        assert hasattr(swarm, name), f"Swarm.{name}"
    assert list(swarm.upgrader.muxer_multistream.transports) == [MUX_PROTOCOL, YAMUX]
    assert list(swarm.upgrader.security_multistream.transports) == [NOISE], "only Noise may be offered"
    assert inspect.iscoroutinefunction(Pubsub.push_msg), "Pubsub.push_msg is where bad keys are caught"


async def test_the_keys_of_a_session_are_where_we_take_them() -> None:
    """Both directions of a stock handshake, read and written by our cipher."""
    pairs = [create_new_key_pair() for _ in range(2)]
    ids = [new_host(key_pair=pair).get_id() for pair in pairs]
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    dialled = await trio.testing.open_stream_to_socket_listener(listeners[0])
    accepted = await listeners[0].accept()
    raws = [
        RawConnection(TrioTCPStream(dialled), initiator=True),
        RawConnection(TrioTCPStream(accepted), initiator=False),
    ]
    noises = [NoiseTransport(pair, noise_privkey=noise_pair().private_key) for pair in pairs]
    sessions: dict[int, Any] = {}
    async with trio.open_nursery() as nursery:

        async def inbound() -> None:
            sessions[1] = await noises[1].secure_inbound(raws[1])

        nursery.start_soon(inbound)
        sessions[0] = await noises[0].secure_outbound(raws[0], ids[1])
    for stock in sessions.values():
        assert isinstance(stock, SecureSession)
        assert isinstance(stock.conn, noise_io.NoiseTransportReadWriter), "SecureSession.conn"
        assert isinstance(stock.conn.noise_state, NoiseConnection), "NoiseTransportReadWriter.noise_state"
        state = stock.conn.noise_state.noise_protocol
        for name in ("cipher_state_encrypt", "cipher_state_decrypt"):
            cipher = getattr(state, name)
            assert type(cipher).__name__ == "CipherState", name
            assert (len(cipher.k), cipher.n) == (32, 0), f"{name}: key or first nonce"
    sealing, opening = session.ciphers_of(sessions[0])
    for text in (b"first", b"second"):
        view = memoryview(bytearray(text + bytes(16)))
        sealing.seal(view)
        assert sessions[1].conn.decrypt(bytes(view)) == text, "the library opens what we seal"
        assert bytes(opening.open(memoryview(bytearray(sessions[1].conn.encrypt(text))))) == text
    for raw in raws:
        await raw.close()
    await listeners[0].aclose()
