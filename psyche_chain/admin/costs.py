"""What a command cost its wallet: fees that are gone, and rent that went into accounts or came back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psyche_chain.amounts import format_amount
from psyche_chain.chain import queries
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.sender import Landed

SOL_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Cost:
    """Lamports that the paying wallet spent on some transactions."""

    signatures: tuple[str, ...]
    """Transactions that landed, oldest first."""
    fees: int
    """Base and priority fees."""
    priority_fees: int
    """The part of `fees` that was offered to be taken sooner."""
    rent: int | None
    """Put into accounts; negative where it came back; None where the endpoint does not tell."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "transactions": len(self.signatures),
            "fees_lamports": self.fees,
            "priority_fees_lamports": self.priority_fees,
            "rent_lamports": self.rent,
            "signatures": list(self.signatures),
        }

    def lines(self) -> list[str]:
        """For people."""
        count = len(self.signatures)
        of = f", {self.priority_fees} of them priority" if self.priority_fees else ""
        many = "1 transaction" if count == 1 else f"{count} transactions"
        lines = [f"fees  {sol(self.fees)} ({self.fees} lamports{of}) for {many}"]
        if self.rent is None:
            lines.append("rent  unknown: the endpoint does not tell what the transactions changed")
        elif self.rent:
            way = "put into accounts" if self.rent > 0 else "came back from accounts"
            lines.append(f"rent  {sol(abs(self.rent))} ({abs(self.rent)} lamports) {way}")
        return lines


def sol(lamports: int) -> str:
    """An amount with its unit."""
    return f"{format_amount(lamports, SOL_DECIMALS)} SOL"


async def measure(rpc: RpcPool, landed: Sequence[Landed]) -> Cost:
    """What transactions cost their payer, from the balances that the chain recorded."""
    fees, rent = 0, 0
    known = True
    for transaction in landed:
        found = await queries.transaction_cost(rpc, transaction.signature)
        if found is None:
            fees += transaction.base_fee + transaction.priority_fee
            known = False
        else:
            fee, change = found
            fees += fee
            rent -= change + fee
    return Cost(
        tuple(t.signature for t in landed),
        fees,
        sum(t.priority_fee for t in landed),
        rent if known else None,
    )
