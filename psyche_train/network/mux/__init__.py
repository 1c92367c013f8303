"""`/psyche/mux/1`: many streams over one connection, at the speed of its cipher.

`frames.py` has the bytes on the wire, `window.py` how much a peer may send, `stream.py` one stream,
`muxer.py` the connection. What it promises is in `docs/network.md`.
"""

from __future__ import annotations

from psyche_train.network.mux.frames import MUX_PROTOCOL, MuxProtocolError
from psyche_train.network.mux.muxer import Muxer
from psyche_train.network.mux.stream import MuxStream
from psyche_train.network.mux.window import WindowPool

__all__ = ["MUX_PROTOCOL", "MuxProtocolError", "MuxStream", "Muxer", "WindowPool"]
