"""The `meta` of an included transaction, in the form that getTransaction gives."""

from __future__ import annotations

import struct
from collections.abc import Callable

from base58 import b58encode
from solders.pubkey import Pubkey

from localnet.chain.executor import Outcome
from localnet.chain.ids import ED25519, MEMO, MEMO_V1, SECP256K1, SECP256R1, TOKEN_PROGRAMS
from localnet.chain.records import AccountRecord, Json

TOKEN_ACCOUNT_BYTES = 165
MINT_BYTES = 82
_SIGNATURE_COST = 720
_PRECOMPILE_COST = {ED25519: 2_280, SECP256K1: 6_690, SECP256R1: 4_800}
_WRITE_LOCK_COST = 300
_BYTES_A_UNIT = 4
_PAGE_BYTES = 32 * 1024
_PAGE_COST = 8
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


def _token_balances(keys: list[bytes], get: Get, *, stored: bool) -> list[Json]:
    """Amounts of all token accounts; a stored amount of nothing has no number, only its text."""
    balances: list[Json] = []
    for index, address in enumerate(keys):
        record = get(address)
        if not is_token_account(record):
            continue
        mint = get(record.data[:32])
        if not is_mint(mint):
            continue
        (amount,) = struct.unpack_from("<Q", record.data, 64)
        shown = ui_amount(amount, mint.data[44])
        if stored and not amount:
            shown["uiAmount"] = None
        balances.append(
            {
                "accountIndex": index,
                "mint": text(record.data[:32]),
                "owner": text(record.data[32:64]),
                "programId": text(record.owner),
                "uiTokenAmount": shown,
            }
        )
    return balances


def balances(out: Outcome, get: Get, *, stored: bool) -> dict[str, Json]:
    """Lamports and tokens of all accounts before and after; `get` gives accounts as they were before."""
    keys = out.keys
    after = out.changes

    def get_after(address: bytes) -> AccountRecord:
        return after[address] if address in after else get(address)

    return {
        "preBalances": [get(key).lamports for key in keys],
        "postBalances": [get_after(key).lamports for key in keys],
        "preTokenBalances": _token_balances(keys, get, stored=stored),
        "postTokenBalances": _token_balances(keys, get_after, stored=stored),
    }


def loaded_addresses(out: Outcome) -> dict[str, Json]:
    """What came from lookup tables."""
    return {
        "writable": [text(key) for key in out.loaded_writable],
        "readonly": [text(key) for key in out.loaded_readonly],
    }


def cost_units(out: Outcome) -> int:
    """What a block's limits count for a transaction: signatures, write locks, data, execution, loading."""
    message = out.message
    signatures = message.num_signers * _SIGNATURE_COST
    signatures += sum(
        _PRECOMPILE_COST[ix.program] * ix.data[0]
        for ix in message.instructions
        if ix.program in _PRECOMPILE_COST and ix.data
    )
    data = sum(len(ix.data) for ix in message.instructions) // _BYTES_A_UNIT
    pages = -(-out.loaded_bytes // _PAGE_BYTES)
    return signatures + len(out.before) * _WRITE_LOCK_COST + data + out.units + pages * _PAGE_COST


def build(out: Outcome, get: Get) -> dict[str, Json]:
    """Meta of an included transaction.

    Args:
        out: what it did.
        get: accounts as they were before it.
    """
    ran = not isinstance(out.err, str)
    return {
        "err": out.err,
        "status": {"Ok": None} if out.err is None else {"Err": out.err},
        "fee": out.fees.total,
        **balances(out, get, stored=True),
        "innerInstructions": inner(out.inner) if ran else None,
        "logMessages": out.logs if ran else None,
        "rewards": [],
        "loadedAddresses": loaded_addresses(out),
        "returnData": out.return_data,
        "computeUnitsConsumed": out.units,
        "costUnits": cost_units(out),
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
