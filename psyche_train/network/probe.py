"""Whether members can dial an address of this member: for a command that asks once, without a running member.

Imports libp2p: only where it is used.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from psyche_train.network.links import Links
from psyche_train.network.node import Node
from psyche_train.network.reach import Reach
from psyche_train.network.types import NOWHERE, Peer

CONNECT_S = 25.0
ASK_S = 60.0


@dataclass(frozen=True, slots=True)
class Reachability:
    """What members said.

    Attributes:
        dialable: None if nobody could be asked.
        connected: members this one could dial, of those it tried.
        answers: member -> address -> why it cannot be dialled, empty if it can.
        unreachable: member -> why it could not be asked.
    """

    dialable: bool | None
    connected: int
    answers: dict[bytes, dict[str, str]] = field(default_factory=dict)
    unreachable: dict[bytes, str] = field(default_factory=dict)


async def ask_members(
    seed: bytes, peers: Sequence[Peer], addresses: Sequence[str], *, listen: str = NOWHERE
) -> Reachability:
    """Connect to members with this member's key, and let them dial `addresses`.

    Whoever listens there has to have the key: the member itself, if it runs, or this function.

    Args:
        listen: where to listen meanwhile, if the member does not run.

    Raises:
        OSError: it cannot listen there.
    """
    node = Node(seed, listen)
    reach = Reach(node)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        nursery.start_soon(Links(node).run)
        node.set_members(peers)
        with trio.move_on_after(CONNECT_S):
            while not any(node.connected(key) for key in node.members):
                if all(member.failures >= 2 for member in node.members.values()):
                    break
                await trio.sleep(0.05)
            await trio.sleep(1)  # a few more to ask
        count = sum(node.connected(key) for key in node.members)
        with trio.move_on_after(ASK_S):
            await reach.ask(addresses)
        found = Reachability(
            reach.dialable,
            count,
            reach.answers,
            {key: member.error for key, member in node.members.items() if not node.connected(key)},
        )
        nursery.cancel_scope.cancel()
    return found


def port_answers(host: str, port: int, *, timeout_s: float = 5.0) -> str:
    """Why nothing accepts TCP connections at an address of this machine; empty if something does."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return ""
    except OSError as exc:
        return exc.strerror or str(exc) or type(exc).__name__
