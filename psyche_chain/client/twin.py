"""Whether another machine is a member with the same wallet at this moment."""

from __future__ import annotations

import ipaddress

import trio
from solders.pubkey import Pubkey

from psyche_chain.chain import accounts
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.errors import PsycheError

PATIENCE_S = 3.0
"""Longest time for one address to answer."""
GREETING = b"\x13/multistream/1.0.0\n"
"""With which every libp2p connection begins, in both directions."""


async def refuse_twin(rpc: RpcPool, run: accounts.Run, wallet: Pubkey) -> None:
    """Refuse to start while a peer answers at the addresses that the chain has for this wallet.

    The lock on this machine is held already, so whoever answers there is another machine's process. A member
    behind a router that nobody can reach is not found; it notices by itself that its place was taken.

    Raises:
        PsycheError: somebody answers.
    """
    membership = await accounts.fetch_membership(rpc, run.run_state, wallet)
    for contact in membership.contact.split(",") if membership is not None else ():
        if await _answers(contact):
            raise PsycheError(
                f"wallet {wallet} is a member of run {run.run_id} already, at {contact}, and answers there",
                "stop that process first, or use another wallet; if it is not yours, make the wallet leave: "
                f"psyche-chain leave {run.run_id}",
            )


async def _answers(contact: str) -> bool:
    """Whether a libp2p peer listens at a multiaddr."""
    parts = contact.split("/")
    try:
        host, port = ipaddress.ip_address(parts[2]), int(parts[4])
    except (IndexError, ValueError):  # a name or another transport: not asked
        return False
    found = b""
    with trio.move_on_after(PATIENCE_S):
        try:
            async with await trio.open_tcp_stream(str(host), port) as stream:
                await stream.send_all(GREETING)
                while len(found) < len(GREETING) and (more := await stream.receive_some(64)):
                    found += more
        except (OSError, ValueError, OverflowError, trio.BrokenResourceError):
            return False
    return found.startswith(GREETING)
