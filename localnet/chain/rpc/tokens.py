"""Token accounts of the two token programs."""

from __future__ import annotations

import struct

from localnet.chain.errors import invalid_params
from localnet.chain.ids import TOKEN_PROGRAMS
from localnet.chain.records import AccountRecord, Json
from localnet.chain.rpc import encode
from localnet.chain.rpc.params import Params, address
from localnet.chain.rpc.registry import Node, method
from localnet.chain.txmeta import is_mint, is_token_account, text, ui_amount
from localnet.chain.view import View

_LARGEST = 20


def _mint(view: View, key: bytes) -> AccountRecord:
    record = view.get(key)
    if not record.lamports:
        raise invalid_params("Invalid param: could not find account")
    if not is_mint(record):
        raise invalid_params("Invalid param: not a Token mint")
    return record


@method
def get_token_account_balance(node: Node, params: Params) -> Json:
    record = node.view.get(params.address(0))
    if not record.lamports:
        raise invalid_params("Invalid param: could not find account")
    if not is_token_account(record):
        raise invalid_params("Invalid param: not a Token account")
    mint = _mint(node.view, record.data[:32])
    return node.with_context(ui_amount(_amount(record), mint.data[44]))


@method
def get_token_supply(node: Node, params: Params) -> Json:
    mint = _mint(node.view, params.address(0))
    (supply,) = struct.unpack_from("<Q", mint.data, 36)
    return node.with_context(ui_amount(supply, mint.data[44]))


@method
def get_token_largest_accounts(node: Node, params: Params) -> Json:
    key = params.address(0)
    mint = _mint(node.view, key)
    held = [
        (_amount(record), account)
        for account, record in _token_accounts(node.view, {mint.owner})
        if record.data[:32] == key
    ]
    held.sort(key=lambda pair: (-pair[0], pair[1]))
    return node.with_context(
        [{"address": text(a), **ui_amount(amount, mint.data[44])} for amount, a in held[:_LARGEST]]
    )


@method
def get_token_accounts_by_owner(node: Node, params: Params) -> Json:
    return _by(node, params, lambda record: record.data[32:64])


@method
def get_token_accounts_by_delegate(node: Node, params: Params) -> Json:
    return _by(node, params, lambda record: record.data[76:108] if record.data[72] else b"")


def _amount(record: AccountRecord) -> int:
    (amount,) = struct.unpack_from("<Q", record.data, 64)
    return int(amount)


def _token_accounts(view: View, programs: set[bytes]) -> list[tuple[bytes, AccountRecord]]:
    return [
        (key, view.accounts[key])
        for program in programs
        for key in view.owned_by(program)
        if is_token_account(view.accounts[key])
    ]


def _by(node: Node, params: Params, holder: object) -> Json:
    """Token accounts whose holder is the first parameter, of one mint or of one program."""
    assert callable(holder)
    wanted = params.address(0)
    config = params.config(2)
    node.check_min_context(config)
    encoding = encode.Encoding.from_config(config)
    which = params.config(1)
    mint: bytes | None = None
    if "mint" in which:
        mint = address(which.get("mint", str, ""))
        programs = {_mint(node.view, mint).owner}
    elif "programId" in which:
        program = address(which.get("programId", str, ""))
        if program not in TOKEN_PROGRAMS:
            raise invalid_params("Invalid param: unrecognized Token program id")
        programs = {program}
    else:
        raise invalid_params("Invalid params: expected `mint` or `programId`.")
    found = [
        {"pubkey": text(key), "account": encode.account(node.view, key, record, encoding)}
        for key, record in _token_accounts(node.view, programs)
        if holder(record) == wanted and mint in (None, record.data[:32])
    ]
    return node.with_context(found)
