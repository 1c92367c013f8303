"""Transactions that come in: sending, simulating, airdrops."""

from __future__ import annotations

import asyncio

from base58 import b58decode
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from localnet.chain.bank import Busy
from localnet.chain.errors import NODE_UNHEALTHY, PREFLIGHT_FAILURE, RpcError, describe, invalid_params
from localnet.chain.ids import COMPUTE_BUDGET
from localnet.chain.message import MAX_TRANSACTION_BYTES, parse
from localnet.chain.records import GONE, Executed, Json, Rejected, Simulated
from localnet.chain.rpc import encode
from localnet.chain.rpc.params import (
    Config,
    Params,
    address,
    base58_error,
    from_base64,
    missing_field,
    strict_commitment,
    unknown_variant,
)
from localnet.chain.rpc.registry import Node, method
from localnet.chain.rpc.transactions import serde_text

_TYPE = "solana_transaction::versioned::VersionedTransaction"
_MAX_ENCODED = {"base58": 1683, "base64": 1644}
_ENCODINGS = ("binary", "base64", "base58", "json", "jsonParsed")
_BUDGET = Pubkey.from_bytes(COMPUTE_BUDGET)


def decode_transaction(data: str, encoding: str) -> tuple[VersionedTransaction, bytes]:
    """A transaction and its canonical bytes.

    Raises:
        RpcError: too large, not in its encoding, not a transaction, or one that does not make sense.
    """
    raw = _decode(data, encoding)
    try:
        tx = VersionedTransaction.from_bytes(raw)
        canonical = bytes(tx)
    except Exception as exc:  # solders raises several unrelated types here
        raise invalid_params(f"failed to deserialize {_TYPE}: {serde_text(exc)}") from None
    if canonical != raw[: len(canonical)]:
        raise invalid_params(f"failed to deserialize {_TYPE}: not in its canonical form")
    try:
        tx.sanitize()
        signed = len(tx.signatures) == tx.message.header.num_required_signatures
    except Exception:  # as above
        signed = False
    if not signed or not tx.signatures:
        raise invalid_params("invalid transaction: Transaction failed to sanitize accounts offsets correctly")
    _check_budget(tx)
    return tx, canonical


def _decode(data: str, encoding: str) -> bytes:
    if encoding not in _ENCODINGS:
        raise unknown_variant(encoding, *_ENCODINGS)
    encoding = "base58" if encoding == "binary" else encoding
    if encoding not in _MAX_ENCODED:
        raise invalid_params(f"unsupported encoding: {encoding}. Supported encodings: base58, base64")
    limit = f"(max: encoded/raw {_MAX_ENCODED[encoding]}/{MAX_TRANSACTION_BYTES})"
    if len(data) > _MAX_ENCODED[encoding]:
        raise invalid_params(f"{encoding} encoded {_TYPE} too large: {len(data)} bytes {limit}")
    try:
        raw = b58decode(data) if encoding == "base58" else from_base64(data)
    except ValueError as exc:
        reason = base58_error(data) if encoding == "base58" else exc
        raise invalid_params(f"invalid {encoding} encoding: {reason}") from None
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise invalid_params(
            f"decoded {_TYPE} too large: {len(raw)} bytes (max: {MAX_TRANSACTION_BYTES} bytes)"
        )
    return raw


def _check_budget(tx: VersionedTransaction) -> None:
    """A validator refuses a compute budget that is set twice before it looks at anything else."""
    keys = tx.message.account_keys
    seen: set[int] = set()
    for index, ix in enumerate(tx.message.instructions):
        if keys[ix.program_id_index] != _BUDGET or not ix.data:
            continue
        kind = bytes(ix.data)[0]
        if 1 <= kind <= 4 and kind in seen:
            raise invalid_params(f"invalid transaction: {describe({'DuplicateInstruction': index})}")
        seen.add(kind)


def _busy() -> RpcError:
    return RpcError(NODE_UNHEALTHY, "Node is unhealthy: too many requests wait", {"numSlotsBehind": None})


def _failure(result: Rejected) -> RpcError:
    """The error of a failed preflight."""
    data = {
        "accounts": None,
        "err": result.err,
        "fee": result.fee,
        "innerInstructions": None,
        "loadedAccountsDataSize": result.loaded_bytes,
        "loadedAddresses": None,
        "logs": result.logs,
        "postBalances": None,
        "postTokenBalances": None,
        "preBalances": None,
        "preTokenBalances": None,
        "replacementBlockhash": None,
        "returnData": result.return_data,
        "unitsConsumed": result.units,
    }
    return RpcError(PREFLIGHT_FAILURE, f"Transaction simulation failed: {describe(result.err)}", data)


@method(required=1, optional=1)
async def send_transaction(node: Node, params: Params) -> Json:
    """Execute at once; the answer comes after the commit.

    With preflight a transaction that would fail is refused and costs nothing. Without, it enters the block
    and pays; one that cannot (unknown blockhash, no funds, bad signature) is dropped silently, as a validator
    does.
    """
    config = params.config(1, "RpcSendTransactionConfig")
    preflight = not config.get("skipPreflight", bool, False)
    strict_commitment(config, "preflightCommitment")
    config.get("maxRetries", int, None, "usize")
    tx, raw = decode_transaction(params.string(0), config.get("encoding", str, "base58"))
    node.check_min_context(config)
    if not all(tx.verify_with_results()):
        if preflight:
            raise _failure(Rejected("SignatureFailure"))
        return str(tx.signatures[0])
    try:
        result = await asyncio.wrap_future(node.bank.submit(tx, raw, preflight=preflight))
    except Busy:
        raise _busy() from None
    if isinstance(result, Rejected) and preflight:
        raise _failure(result)
    return str(tx.signatures[0])


@method(required=1, optional=1)
async def simulate_transaction(node: Node, params: Params) -> Json:
    config = params.config(1, "RpcSimulateTransactionConfig")
    tx, _ = decode_transaction(params.string(0), config.get("encoding", str, "base58"))
    node.check_min_context(config)
    verify = config.get("sigVerify", bool, False)
    replace = config.get("replaceRecentBlockhash", bool, False)
    inner = config.get("innerInstructions", bool, False)
    if verify and replace:
        raise invalid_params("sigVerify may not be used with replaceRecentBlockhash")
    wanted = _wanted_accounts(config, len(parse(tx).static_keys) + parse(tx).num_lookups)
    if verify and not all(tx.verify_with_results()):
        result = Simulated(node.view.slot, "SignatureFailure")
    else:
        try:
            result = await asyncio.wrap_future(node.bank.simulate(tx, verify=verify, replace=replace))
        except Busy:
            raise _busy() from None
    return {
        "context": {**node.context(), "slot": result.slot},
        "value": _simulation(node, result, wanted, inner),
    }


def _simulation(
    node: Node, result: Simulated, wanted: tuple[list[bytes], encode.Encoding] | None, inner: bool
) -> dict[str, Json]:
    value: dict[str, Json] = {
        "accounts": _simulated_accounts(node, result, wanted),
        "err": result.err,
        "fee": result.fee,
        "innerInstructions": result.inner if inner else None,
        "loadedAccountsDataSize": result.loaded_bytes,
        "loadedAddresses": result.loaded_addresses or {"writable": [], "readonly": []},
        "logs": result.logs,
        "replacementBlockhash": None,
        "returnData": result.return_data,
        "unitsConsumed": result.units,
    }
    for name in ("preBalances", "postBalances", "preTokenBalances", "postTokenBalances"):
        value[name] = result.balances.get(name)
    if result.blockhash is not None:
        blockhash, height = result.blockhash
        value["replacementBlockhash"] = {"blockhash": blockhash, "lastValidBlockHeight": height}
    return value


def _wanted_accounts(config: Config, num_keys: int) -> tuple[list[bytes], encode.Encoding] | None:
    wanted = config.get("accounts", dict, None)
    if wanted is None:
        return None
    encoding = encode.Encoding.from_config(Config(wanted), default="base64")
    if "addresses" not in wanted:
        raise missing_field("addresses")
    addresses = Config(wanted).get("addresses", list, [])
    if encoding.name in ("binary", "base58"):
        raise invalid_params("base58 encoding not supported")
    if len(addresses) > num_keys:
        raise invalid_params(f"Too many accounts provided; max {num_keys}")
    return [address(str(item)) for item in addresses], encoding


def _simulated_accounts(
    node: Node, result: Simulated, wanted: tuple[list[bytes], encode.Encoding] | None
) -> Json:
    if wanted is None:
        return None
    keys, encoding = wanted
    if result.err is not None:
        return [None] * len(keys)
    records = [result.accounts.get(key, node.view.get(key)) for key in keys]
    return [
        None if record is GONE or not record.lamports else encode.account(node.view, key, record, encoding)
        for key, record in zip(keys, records, strict=True)
    ]


@method(required=2, optional=1)
async def request_airdrop(node: Node, params: Params) -> Json:
    target, lamports = params.address(0), params.integer(1)
    params.config(2, "RpcRequestAirdropConfig")
    try:
        result = await asyncio.wrap_future(node.bank.airdrop(target, lamports))
    except Busy:
        raise _busy() from None
    if isinstance(result, Executed):
        return str(Signature.from_bytes(result.signature))
    raise _failure(result)
