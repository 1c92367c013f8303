"""What a wallet really has and really paid, straight from the chain."""

from pathlib import Path

import httpx
from solders.pubkey import Pubkey

from psyche_chain.wallet import load_wallet


def ask(url: str, method: str, *params: object) -> object:
    """One JSON-RPC call; its result."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    answer = httpx.post(url, json=body).json()
    assert "error" not in answer, answer
    return answer["result"]


CONFIRMED = {"commitment": "confirmed"}


def address(wallet: Path) -> str:
    return str(load_wallet(wallet)[0].pubkey())


def lamports(url: str, key: str | Pubkey | Path) -> int:
    """A balance."""
    name = address(key) if isinstance(key, Path) else str(key)
    return int(ask(url, "getBalance", name, CONFIRMED)["value"])  # type: ignore[index]


def fees_paid(url: str, wallet: Path) -> int:
    """Of all transactions that the wallet paid for."""
    total = 0
    for row in ask(url, "getSignaturesForAddress", address(wallet), CONFIRMED):  # type: ignore[attr-defined]
        options = {**CONFIRMED, "encoding": "json", "maxSupportedTransactionVersion": 0}
        found = ask(url, "getTransaction", row["signature"], options)
        if found["transaction"]["message"]["accountKeys"][0] == address(wallet):  # type: ignore[index]
            total += found["meta"]["fee"]  # type: ignore[index]
    return total


def deposited(url: str, wallet: Path, start: int) -> int:
    """What of the lamports that the wallet started with lies in accounts: neither there any more, nor a fee."""
    return start - lamports(url, wallet) - fees_paid(url, wallet)
