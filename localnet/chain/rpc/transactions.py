"""Transactions: sending, simulating, statuses, history, fees, blockhashes."""

from __future__ import annotations

import asyncio
from base64 import b64decode

from base58 import b58decode
from solders.message import from_bytes_versioned
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from localnet.chain.bank import Busy
from localnet.chain.errors import (
    NODE_UNHEALTHY,
    PREFLIGHT_FAILURE,
    SIGNATURE_FAILURE,
    RpcError,
    describe,
    invalid_params,
)
from localnet.chain.message import MAX_TRANSACTION_BYTES, fees, parse
from localnet.chain.records import (
    FINALITY_SLOTS,
    GONE,
    MAX_PROCESSING_AGE,
    Executed,
    Json,
    Rejected,
    Simulated,
)
from localnet.chain.rpc import encode, txencode
from localnet.chain.rpc.params import Config, Params, address, signature
from localnet.chain.rpc.registry import Node, method
from localnet.chain.txmeta import text

MAX_SIGNATURES = 256
MAX_HISTORY = 1_000
_TYPE = "solana_transaction::versioned::VersionedTransaction"
_MAX_ENCODED = {"base58": 1683, "base64": 1644}


def decode_transaction(data: str, encoding: str) -> tuple[VersionedTransaction, bytes]:
    """A transaction and its canonical bytes.

    Raises:
        RpcError: too large, not in its encoding, not a transaction, or one that does not make sense.
    """
    if encoding not in _MAX_ENCODED:
        raise invalid_params(f"unsupported encoding: {encoding}. Supported encodings: base58, base64")
    limit = f"(max: encoded/raw {_MAX_ENCODED[encoding]}/{MAX_TRANSACTION_BYTES})"
    if len(data) > _MAX_ENCODED[encoding]:
        raise invalid_params(f"{encoding} encoded {_TYPE} too large: {len(data)} bytes {limit}")
    try:
        raw = b58decode(data) if encoding == "base58" else b64decode(data, validate=True)
    except ValueError as exc:
        raise invalid_params(f"invalid {encoding} encoding: {exc}") from None
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise invalid_params(
            f"decoded {_TYPE} too large: {len(raw)} bytes (max: {MAX_TRANSACTION_BYTES} bytes)"
        )
    try:
        tx = VersionedTransaction.from_bytes(raw)
        canonical = bytes(tx)
    except Exception as exc:  # solders raises several unrelated types here
        raise invalid_params(f"failed to deserialize {_TYPE}: {exc}") from None
    if canonical != raw[: len(canonical)]:
        raise invalid_params(f"failed to deserialize {_TYPE}: not in its canonical form")
    try:
        tx.sanitize()
        signed = len(tx.signatures) == tx.message.header.num_required_signatures
    except Exception:  # as above
        signed = False
    if not signed or not tx.signatures:
        raise invalid_params("invalid transaction: Transaction failed to sanitize accounts offsets correctly")
    return tx, canonical


def _busy() -> RpcError:
    return RpcError(NODE_UNHEALTHY, "Node is unhealthy: too many requests wait", {"numSlotsBehind": None})


def _failure(result: Rejected) -> RpcError:
    """The error of a failed preflight."""
    data = {
        "accounts": None,
        "err": result.err,
        "innerInstructions": None,
        "logs": result.logs,
        "replacementBlockhash": None,
        "returnData": result.return_data,
        "unitsConsumed": result.units,
    }
    return RpcError(PREFLIGHT_FAILURE, f"Transaction simulation failed: {describe(result.err)}", data)


@method
async def send_transaction(node: Node, params: Params) -> Json:
    """Execute at once; the answer comes after the commit.

    With preflight a transaction that would fail is refused and costs nothing. Without, it enters the block
    and pays; one that cannot (unknown blockhash, no funds) is dropped silently, as a validator does.
    """
    config = params.config(1)
    encoding = config.get("encoding", str, "base58")
    tx, raw = decode_transaction(params.string(0), encoding)
    config.get("maxRetries", int, None)
    if not config.get("skipPreflight", bool, False):
        node.check_min_context(config)
    if not all(tx.verify_with_results()):
        raise RpcError(SIGNATURE_FAILURE, "Transaction signature verification failure")
    preflight = not config.get("skipPreflight", bool, False)
    try:
        result = await asyncio.wrap_future(node.bank.submit(tx, raw, preflight=preflight))
    except Busy:
        raise _busy() from None
    if isinstance(result, Rejected) and preflight:
        raise _failure(result)
    return str(tx.signatures[0])


@method
async def simulate_transaction(node: Node, params: Params) -> Json:
    config = params.config(1)
    encoding = config.get("encoding", str, "base58")
    tx, _ = decode_transaction(params.string(0), encoding)
    node.check_min_context(config)
    verify = config.get("sigVerify", bool, False)
    replace = config.get("replaceRecentBlockhash", bool, False)
    if verify and replace:
        raise invalid_params("sigVerify may not be used with replaceRecentBlockhash")
    if verify and not all(tx.verify_with_results()):
        raise RpcError(SIGNATURE_FAILURE, "Transaction signature verification failure")
    wanted = _wanted_accounts(config)
    try:
        result = await asyncio.wrap_future(node.bank.simulate(tx, verify=verify, replace=replace))
    except Busy:
        raise _busy() from None
    value: dict[str, Json] = {
        "accounts": _simulated_accounts(node, result, wanted),
        "err": result.err,
        "innerInstructions": result.inner if config.get("innerInstructions", bool, False) else None,
        "logs": result.logs,
        "replacementBlockhash": None,
        "returnData": result.return_data,
        "unitsConsumed": result.units,
        "fee": result.fee,
    }
    if result.blockhash is not None:
        blockhash, height = result.blockhash
        value["replacementBlockhash"] = {"blockhash": blockhash, "lastValidBlockHeight": height}
    return {"context": {**node.context(), "slot": result.slot}, "value": value}


def _wanted_accounts(config: Config) -> tuple[list[bytes], encode.Encoding] | None:
    wanted = config.get("accounts", dict, None)
    if wanted is None:
        return None
    encoding = encode.Encoding.from_config(Config(wanted), default="base64")
    if encoding.name in ("binary", "base58"):
        raise invalid_params("base58 encoding not supported")
    return [address(str(item)) for item in wanted.get("addresses", [])], encoding


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


@method
async def request_airdrop(node: Node, params: Params) -> Json:
    target, lamports = params.address(0), params.integer(1)
    try:
        result = await asyncio.wrap_future(node.bank.airdrop(target, lamports))
    except Busy:
        raise _busy() from None
    if isinstance(result, Executed):
        return str(Signature.from_bytes(result.signature))
    raise _failure(result)


def status(node: Node, slot: int, err: Json) -> dict[str, Json]:
    """A signature's status; `confirmations` is null once it is finalized, as Solana shows it."""
    finalized = slot <= node.view.slot - FINALITY_SLOTS
    return {
        "slot": slot,
        "confirmations": None if finalized else node.view.slot - slot,
        "err": err,
        "status": {"Ok": None} if err is None else {"Err": err},
        "confirmationStatus": "finalized" if finalized else "confirmed",
    }


@method
def get_signature_statuses(node: Node, params: Params) -> Json:
    values = params.array(0)
    if len(values) > MAX_SIGNATURES:
        raise invalid_params(f"Too many inputs provided; max {MAX_SIGNATURES}")
    found: list[Json] = []
    for value in values:
        if not isinstance(value, str):
            raise invalid_params("Invalid params: invalid type, expected a string.")
        row = node.history.status(signature(value), node.view.last_id)
        found.append(None if row is None else status(node, *row))
    return node.with_context(found)


@method
def get_signatures_for_address(node: Node, params: Params) -> Json:
    key = params.address(0)
    config = params.config(1)
    node.check_min_context(config)
    limit = config.get("limit", int, MAX_HISTORY)
    if not 1 <= limit <= MAX_HISTORY:
        raise invalid_params(f"Invalid limit; max {MAX_HISTORY}")
    before = config.get("before", str, None)
    until = config.get("until", str, None)
    rows = node.history.signatures_for(
        key,
        node.view.last_id,
        limit,
        None if before is None else signature(before),
        None if until is None else signature(until),
    )
    newest = node.view.finalized if config.finalized and config.commitment else node.view.slot
    return [
        {
            "signature": str(Signature.from_bytes(raw)),
            "slot": slot,
            "err": err,
            "memo": memo,
            "blockTime": block_time(node, slot),
            "confirmationStatus": status(node, slot, err)["confirmationStatus"],
        }
        for raw, slot, err, memo in rows
        if slot <= newest
    ]


def block_time(node: Node, slot: int) -> int | None:
    """Unix seconds at which a slot began."""
    row = node.view.row(slot) or node.history.slot(slot)
    return None if row is None else row.time


def string_config(params: Params, index: int) -> Config:
    """A configuration object, or the bare encoding that older clients send in its place."""
    try:
        return params.config(index)
    except RpcError:
        return Config({"encoding": params.string(index)})


@method
def get_transaction(node: Node, params: Params) -> Json:
    config = string_config(params, 1)
    row = node.history.transaction(signature(params.string(0)), node.view.last_id)
    if row is None:
        return None
    slot, raw, meta = row
    version = config.get("maxSupportedTransactionVersion", int, None)
    encoded = txencode.encode(raw, meta, txencode.encoding_of(config), version)
    return {"slot": slot, "blockTime": block_time(node, slot), **encoded}


@method
def get_transaction_count(node: Node, params: Params) -> Json:
    return node.view.last_id


@method
def get_latest_blockhash(node: Node, params: Params) -> Json:
    config = params.config(0)
    node.check_min_context(config)
    row = node.view.newest
    if config.finalized:
        row = node.view.row(node.view.finalized) or row
    return node.with_context(
        {"blockhash": text(row.blockhash), "lastValidBlockHeight": row.slot + MAX_PROCESSING_AGE}
    )


@method
def is_blockhash_valid(node: Node, params: Params) -> Json:
    blockhash = address(params.string(0))  # the same 32 bytes and the same errors
    node.check_min_context(params.config(1))
    return node.with_context(node.view.blockhash_slot(blockhash) is not None)


@method
def get_fee_for_message(node: Node, params: Params) -> Json:
    data = params.string(0)
    node.check_min_context(params.config(1))
    try:
        message = from_bytes_versioned(b64decode(data, validate=True))
        count = message.header.num_required_signatures
        parsed = parse(VersionedTransaction.populate(message, [Signature.default()] * count))
    except Exception as exc:  # solders raises several unrelated types here
        raise invalid_params(f"failed to deserialize message: {exc}") from None
    known = node.view.blockhash_slot(parsed.blockhash) is not None
    return node.with_context(fees(parsed).total if known else None)


@method
def get_recent_prioritization_fees(node: Node, params: Params) -> Json:
    params.array(0, [])
    newest: dict[int, int] = {}
    for slot, fee in node.view.recent_fees:
        newest[slot] = min(fee, newest.get(slot, fee))
    slots = range(max(0, node.view.slot - MAX_PROCESSING_AGE + 1), node.view.slot + 1)
    return [{"slot": slot, "prioritizationFee": newest.get(slot, 0)} for slot in slots]
