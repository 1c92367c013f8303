"""Included transactions: statuses, history, fees, blockhashes."""

from __future__ import annotations

from solders.message import from_bytes_versioned
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from localnet.chain.errors import RpcError, invalid_params
from localnet.chain.message import fees, parse
from localnet.chain.records import FINALITY_SLOTS, MAX_PROCESSING_AGE, Json
from localnet.chain.rpc import txencode
from localnet.chain.rpc.params import Config, Params, address, from_base64, signature, wrong_type
from localnet.chain.rpc.registry import Node, method
from localnet.chain.txmeta import text

MAX_SIGNATURES = 256
MAX_HISTORY = 1_000
MAX_FEE_ADDRESSES = 128
_MESSAGE = "solana_message::non_bpf_modules::versions::VersionedMessage"


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


@method(required=1, optional=1)
def get_signature_statuses(node: Node, params: Params) -> Json:
    values = params.array(0)
    params.config(1, "RpcSignatureStatusConfig").get("searchTransactionHistory", bool, False)
    if len(values) > MAX_SIGNATURES:
        raise invalid_params(f"Too many inputs provided; max {MAX_SIGNATURES}")
    found: list[Json] = []
    for value in values:
        if not isinstance(value, str):
            raise wrong_type(value, "a string")
        row = node.history.status(signature(value), node.view.last_id)
        found.append(None if row is None else status(node, *row))
    return node.with_context(found)


@method(required=1, optional=1)
def get_signatures_for_address(node: Node, params: Params) -> Json:
    key = params.address(0)
    config = node.context_config(params, 1, "RpcSignaturesForAddressConfig")
    config.need_confirmed()
    limit = config.get("limit", int, MAX_HISTORY, "usize")
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


def serde_text(error: Exception) -> str:
    """Why bytes could not be read, as a validator says it."""
    return str(error).replace("unexpected end of file", "failed to fill whole buffer")


def block_time(node: Node, slot: int) -> int | None:
    """Unix seconds at which a slot began."""
    row = node.view.row(slot) or node.history.slot(slot)
    return None if row is None else row.time


def string_config(params: Params, index: int) -> Config:
    """A configuration object, or the bare encoding that older clients send in its place."""
    given = params.peek(index)
    if isinstance(given, str):
        return Config({"encoding": given})
    if given is not None and not isinstance(given, dict):
        raise invalid_params(txencode.UNKNOWN_ENCODING)
    try:
        config = params.config(index)
        config.get("maxSupportedTransactionVersion", int, None)
        config.get("encoding", str, None)
    except RpcError:
        raise invalid_params(txencode.UNKNOWN_ENCODING) from None
    return config


@method(required=1, optional=1)
def get_transaction(node: Node, params: Params) -> Json:
    config = string_config(params, 1)
    wanted = signature(params.string(0))
    encoding = txencode.encoding_of(config)
    version = config.get("maxSupportedTransactionVersion", int, None)
    config.need_confirmed()
    row = node.history.transaction(wanted, node.view.last_id)
    if row is None:
        return None
    slot, raw, meta = row
    encoded = txencode.encode(raw, meta, encoding, version)
    return {"slot": slot, "blockTime": block_time(node, slot), **encoded}


@method(optional=1)
def get_transaction_count(node: Node, params: Params) -> Json:
    node.context_config(params, 0)
    return node.view.last_id


@method(optional=1)
def get_latest_blockhash(node: Node, params: Params) -> Json:
    config = node.context_config(params, 0)
    row = node.view.newest
    if config.finalized:
        row = node.view.row(node.view.finalized) or row
    return node.with_context(
        {"blockhash": text(row.blockhash), "lastValidBlockHeight": row.slot + MAX_PROCESSING_AGE}
    )


@method(required=1, optional=1)
def is_blockhash_valid(node: Node, params: Params) -> Json:
    blockhash = address(params.string(0), "{}")  # as many bytes as an address
    node.context_config(params, 1)
    return node.with_context(node.view.blockhash_slot(blockhash) is not None)


@method(required=1, optional=1)
def get_fee_for_message(node: Node, params: Params) -> Json:
    data = params.string(0)
    node.context_config(params, 1)
    try:
        raw = from_base64(data)
    except ValueError as exc:
        raise invalid_params(f"invalid base64 encoding: {exc}") from None
    try:
        message = from_bytes_versioned(raw)
        count = message.header.num_required_signatures
        parsed = parse(VersionedTransaction.populate(message, [Signature.default()] * count))
    except Exception as exc:  # solders raises several unrelated types here
        raise invalid_params(f"failed to deserialize {_MESSAGE}: {serde_text(exc)}") from None
    known = node.view.blockhash_slot(parsed.blockhash) is not None
    return node.with_context(fees(parsed).total if known else None)


@method(optional=1)
def get_recent_prioritization_fees(node: Node, params: Params) -> Json:
    keys = params.array(0, [])
    if len(keys) > MAX_FEE_ADDRESSES:
        raise invalid_params(f"Too many inputs provided; max {MAX_FEE_ADDRESSES}")
    for key in keys:
        if not isinstance(key, str):
            raise wrong_type(key, "a string")
        address(key)
    newest: dict[int, int] = {}
    for slot, fee in node.view.recent_fees:
        newest[slot] = min(fee, newest.get(slot, fee))
    slots = range(max(0, node.view.slot - MAX_PROCESSING_AGE + 1), node.view.slot + 1)
    return [{"slot": slot, "prioritizationFee": newest.get(slot, 0)} for slot in slots]
