"""Token accounts of the two token programs."""

from __future__ import annotations

import struct

from localnet.chain.errors import invalid_params
from localnet.chain.ids import TOKEN_PROGRAMS
from localnet.chain.records import AccountRecord, Json
from localnet.chain.rpc import encode
from localnet.chain.rpc.params import Config, Params, address, unknown_variant, wrong_type
from localnet.chain.rpc.registry import Node, method
from localnet.chain.txmeta import is_mint, is_token_account, text, ui_amount
from localnet.chain.view import View

_LARGEST = 20


def _mint(view: View, key: bytes, what: str = "mint", unpacked: str = "Token mint") -> AccountRecord:
    """A mint's account; `what` and `unpacked` are what the methods call it where it is missing or none."""
    record = view.get(key)
    if not record.lamports:
        raise invalid_params(f"Invalid param: could not find {what}")
    if not is_mint(record):
        raise invalid_params(f"Invalid param: {unpacked} could not be unpacked")
    return record


@method(required=1, optional=1)
def get_token_account_balance(node: Node, params: Params) -> Json:
    record = node.view.get(params.address(0))
    if not record.lamports:
        raise invalid_params("Invalid param: could not find account")
    if not is_token_account(record):
        raise invalid_params("Invalid param: not a Token account")
    mint = _mint(node.view, record.data[:32])
    return node.with_context(ui_amount(_amount(record), mint.data[44]))


@method(required=1, optional=1)
def get_token_supply(node: Node, params: Params) -> Json:
    key = params.address(0)
    record = node.view.get(key)
    if record.lamports and record.owner not in TOKEN_PROGRAMS:
        raise invalid_params("Invalid param: not a Token mint")
    mint = _mint(node.view, key, "account", "mint")
    (supply,) = struct.unpack_from("<Q", mint.data, 36)
    return node.with_context(ui_amount(supply, mint.data[44]))


@method(required=1, optional=1)
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


@method(required=2, optional=1)
def get_token_accounts_by_owner(node: Node, params: Params) -> Json:
    return _by(node, params, lambda record: record.data[32:64])


@method(required=2, optional=1)
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
    given = params.peek(1)
    if not isinstance(given, dict):
        raise wrong_type(given, "RpcTokenAccountsFilter")
    if len(given) != 1:
        raise invalid_params("Invalid params: invalid value: map, expected map with a single key.")
    config = node.context_config(params, 2, "RpcAccountInfoConfig")
    encoding = encode.Encoding.from_config(config)
    which = Config(given)
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
        raise unknown_variant(next(iter(given)), "mint", "programId")
    found = [
        {"pubkey": text(key), "account": encode.account(node.view, key, record, encoding)}
        for key, record in _token_accounts(node.view, programs)
        if holder(record) == wanted and mint in (None, record.data[:32])
    ]
    return node.with_context(found)
