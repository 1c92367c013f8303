"""A sender that fails on purpose, at every boundary between two transactions of a command."""

from collections.abc import Sequence
from enum import Enum
from typing import Any

import pytest
from solders.instruction import Instruction
from solders.keypair import Keypair

from psyche_chain.chain.errors import RpcUnavailable
from psyche_chain.chain.sender import Receipt, Sender


class Cut(Enum):
    """Where a command ends, in every one of its invocations."""

    BEFORE_THE_NEXT = "before the next transaction"
    ANSWER_LOST = "the transaction landed, its answer was lost"


class FaultInjectingSender:
    """Lets each invocation of a command land one transaction, then cuts it off.

    Nothing of a command outlives its process but what is on chain, so a cut here is what `kill -9` leaves.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cut: Cut) -> None:
        self.cut = cut
        self.labels: list[str] = []
        """Of the transactions that landed, over all invocations."""
        self.cuts = 0
        self._landed = 0
        send = Sender.send

        async def faulty(
            sender: Sender, steps: Sequence[Instruction], signers: Sequence[Keypair] = (), **named: Any
        ) -> Receipt:
            if self._landed:
                self.cuts += 1
                raise RpcUnavailable("cut off before the transaction")
            receipt = await send(sender, steps, signers, **named)
            self.labels.append(named["label"])
            self._landed += 1
            if self.cut is Cut.ANSWER_LOST:
                self.cuts += 1
                raise RpcUnavailable("cut off before the answer")
            return receipt

        monkeypatch.setattr(Sender, "send", faulty)

    def next_invocation(self) -> None:
        """The user runs the command again."""
        self._landed = 0
