"""The `meta` of an included transaction, in the form that getTransaction gives."""

from __future__ import annotations

import struct
from collections.abc import Callable

from base58 import b58encode
from solders.pubkey import Pubkey

from localnet.chain.executor import Outcome
from localnet.chain.ids import MEMO, MEMO_V1, TOKEN_PROGRAMS
from localnet.chain.records import AccountRecord, Json

TOKEN_ACCOUNT_BYTES = 165
MINT_BYTES = 82
Get = Callable[[bytes], AccountRecord]


def text(address: bytes) -> str:
    """An address or hash in base58."""
    return str(Pubkey.from_bytes(address))


def ui_amount(amount: int, decimals: int) -> dict[str, Json]:
    """A token amount as Solana shows it."""
    string = str(amount)
    if decimals:
        padded = string.rjust(decimals + 1, "0")
        string = f"{padded[:-decimals]}.{padded[-decimals:]}".rstrip("0").rstrip(".")
    return {
        "amount": str(amount),
        "decimals": decimals,
        "uiAmount": amount / 10**decimals,
        "uiAmountString": string,
    }


def is_token_account(record: AccountRecord) -> bool:
    """Whether an account is an initialized token account of either token program."""
    data = record.data
    if record.owner not in TOKEN_PROGRAMS or len(data) < TOKEN_ACCOUNT_BYTES or not data[108]:
        return False
    return len(data) == TOKEN_ACCOUNT_BYTES or data[TOKEN_ACCOUNT_BYTES] == 2


def is_mint(record: AccountRecord) -> bool:
    """Whether an account is an initialized mint of either token program."""
    data = record.data
    if record.owner not in TOKEN_PROGRAMS or len(data) < MINT_BYTES or not data[45]:
        return False
    return len(data) == MINT_BYTES or (len(data) > TOKEN_ACCOUNT_BYTES and data[TOKEN_ACCOUNT_BYTES] == 1)


def _token_balances(keys: list[bytes], get: Get) -> list[Json]:
    balances: list[Json] = []
    for index, address in enumerate(keys):
        record = get(address)
        if not is_token_account(record):
            continue
        mint = get(record.data[:32])
        if not is_mint(mint):
            continue
        (amount,) = struct.unpack_from("<Q", record.data, 64)
        balances.append(
            {
                "accountIndex": index,
                "mint": text(record.data[:32]),
                "owner": text(record.data[32:64]),
                "programId": text(record.owner),
                "uiTokenAmount": ui_amount(amount, mint.data[44]),
            }
        )
    return balances


def build(out: Outcome, get: Get) -> dict[str, Json]:
    """Meta of an included transaction.

    Args:
        out: what it did.
        get: accounts as they were before it.
    """
    keys = out.keys
    changes = out.changes

    def get_after(address: bytes) -> AccountRecord:
        return changes[address] if address in changes else get(address)

    return {
        "err": out.err,
        "status": {"Ok": None} if out.err is None else {"Err": out.err},
        "fee": out.fees.total,
        "preBalances": [get(key).lamports for key in keys],
        "postBalances": [get_after(key).lamports for key in keys],
        "innerInstructions": inner(out.inner),
        "logMessages": out.logs,
        "preTokenBalances": _token_balances(keys, get),
        "postTokenBalances": _token_balances(keys, get_after),
        "rewards": [],
        "loadedAddresses": {
            "writable": [text(key) for key in out.loaded_writable],
            "readonly": [text(key) for key in out.loaded_readonly],
        },
        "returnData": out.return_data,
        "computeUnitsConsumed": out.units,
        "costUnits": out.units,
        "memo": _memo(out),
    }


def inner(groups: list[list[Json]]) -> list[Json]:
    """Inner instructions by the index of the top-level one that made them."""
    return [{"index": i, "instructions": group} for i, group in enumerate(groups) if group]


def _memo(out: Outcome) -> str | None:
    memos = [
        ix.data.decode("utf-8", "replace") if ix.program in (MEMO, MEMO_V1) else None
        for ix in out.message.instructions
    ]
    texts = [f"[{len(memo.encode())}] {memo}" for memo in memos if memo is not None]
    return "; ".join(texts) if texts else None


def base58(data: bytes) -> str:
    return b58encode(data).decode()
