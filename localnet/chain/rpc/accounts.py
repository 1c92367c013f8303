"""Accounts: getAccountInfo, getMultipleAccounts, getProgramAccounts, balances, rent."""

from __future__ import annotations

from localnet.chain.errors import invalid_params
from localnet.chain.ids import SYSTEM, SYSVAR_OWNER
from localnet.chain.records import GONE, Json
from localnet.chain.rpc import encode
from localnet.chain.rpc.params import Params, address, unknown_variant, wrong_type
from localnet.chain.rpc.registry import Node, method
from localnet.chain.txmeta import text

MAX_MULTIPLE_ACCOUNTS = 100
_LARGEST = 20


@method(required=1, optional=1)
def get_account_info(node: Node, params: Params) -> Json:
    key = params.address(0)
    config = node.context_config(params, 1, "RpcAccountInfoConfig")
    record = node.view.get(key)
    if record is GONE:
        return node.with_context(None)
    return node.with_context(encode.account(node.view, key, record, encode.Encoding.from_config(config)))


@method(required=1, optional=1)
def get_multiple_accounts(node: Node, params: Params) -> Json:
    keys = params.array(0)
    config = node.context_config(params, 1, "RpcAccountInfoConfig")
    if len(keys) > MAX_MULTIPLE_ACCOUNTS:
        raise invalid_params(f"Too many inputs provided; max {MAX_MULTIPLE_ACCOUNTS}")
    encoding = encode.Encoding.from_config(config, default="base64")
    found: list[Json] = []
    for value in keys:
        if not isinstance(value, str):
            raise wrong_type(value, "a string")
        key = address(value)
        record = node.view.get(key)
        found.append(None if record is GONE else encode.account(node.view, key, record, encoding))
    return node.with_context(found)


@method(required=1, optional=1)
def get_program_accounts(node: Node, params: Params) -> Json:
    program = params.address(0)
    config = node.context_config(params, 1, "RpcProgramAccountsConfig")
    encoding = encode.Encoding.from_config(config)
    tests = encode.filters(config.get("filters", list, []))
    found = []
    for key in node.view.owned_by(program):
        record = node.view.accounts[key]
        if all(test(record.data) for test in tests):
            shown = encode.account(node.view, key, record, encoding)
            found.append({"pubkey": text(key), "account": shown})
    return node.with_context(found) if config.get("withContext", bool, False) else found


@method(required=1, optional=1)
def get_balance(node: Node, params: Params) -> Json:
    key = params.address(0)
    node.context_config(params, 1)
    return node.with_context(node.view.get(key).lamports)


@method(required=1, optional=1)
def get_minimum_balance_for_rent_exemption(node: Node, params: Params) -> Json:
    return min((params.integer(0, kind="usize") + 128) * 3480 * 2, (1 << 64) - 1)


@method(optional=1)
def get_largest_accounts(node: Node, params: Params) -> Json:
    config = params.config(0, "RpcLargestAccountsConfig")
    wanted = config.get("filter", str, None)
    if wanted not in (None, "circulating", "nonCirculating"):
        raise unknown_variant(wanted, "circulating", "nonCirculating")
    faucet = bytes(node.bank.faucet)
    keys = [
        key
        for key in node.view.owned_by(SYSTEM)
        if wanted is None or (key == faucet) == (wanted != "circulating")
    ]
    keys.sort(key=lambda key: -node.view.accounts[key].lamports)
    return node.with_context(
        [{"address": text(key), "lamports": node.view.accounts[key].lamports} for key in keys[:_LARGEST]]
    )


@method(optional=1)
def get_supply(node: Node, params: Params) -> Json:
    """The faucet's lamports count as not circulating, and it is the only such account."""
    total = node.view.capitalization - sum(
        node.view.accounts[key].lamports for key in node.view.owned_by(SYSVAR_OWNER)
    )
    faucet = bytes(node.bank.faucet)
    held = node.view.get(faucet).lamports
    listed = params.config(0, "RpcSupplyConfig").get("excludeNonCirculatingAccountsList", bool, False)
    return node.with_context(
        {
            "total": total,
            "circulating": total - held,
            "nonCirculating": held,
            "nonCirculatingAccounts": [] if listed else [text(faucet)],
        }
    )
