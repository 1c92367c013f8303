"""Accounts with bytes that no program writes: what a bug, an upgrade or a forger could leave behind."""

import json
from pathlib import Path
from typing import Any

from solders.account import Account
from solders.pubkey import Pubkey

from tests.programs.chain_harness import Chain

LAYOUT: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "programs" / "coordinator" / "layout.json").read_text()
)
U64_MAX = (2**64 - 1).to_bytes(8, "little")


def header_offset(name: str) -> int:
    """Where a field of a log's header starts in its account."""
    return 8 + int(LAYOUT["Header"]["fields"][name][0])


def overwrite(chain: Chain, key: Pubkey, at: int, data: bytes) -> None:
    """Put `data` into an account from byte `at` on."""
    account = chain.svm.get_account(key)
    assert account is not None
    old = bytes(account.data)
    assert 0 <= at <= len(old) - len(data)
    new = old[:at] + data + old[at + len(data) :]
    chain.svm.set_account(key, Account(account.lamports, new, account.owner, False, 0))


def place(chain: Chain, key: Pubkey, data: bytes, owner: Pubkey, lamports: int = 10**9) -> None:
    """Make an account out of nothing."""
    chain.svm.set_account(key, Account(lamports, data, owner, False, 0))
