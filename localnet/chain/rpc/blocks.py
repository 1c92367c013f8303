"""Slots, blocks, epochs."""

from __future__ import annotations

from solders.signature import Signature

from localnet.chain.errors import (
    BLOCK_CLEANED_UP,
    BLOCK_NOT_AVAILABLE,
    RpcError,
    invalid_params,
)
from localnet.chain.message import parse
from localnet.chain.records import SLOTS_PER_EPOCH, Json, SlotRow
from localnet.chain.rpc import txencode
from localnet.chain.rpc.params import Config, Params
from localnet.chain.rpc.registry import Node, method
from localnet.chain.rpc.transactions import block_time, string_config
from localnet.chain.txmeta import text

MAX_BLOCKS = 500_000
_SAMPLE_SLOTS = 150
_MAX_SAMPLES = 720


def _slot(node: Node, config: Config) -> int:
    return node.view.finalized if config.finalized else node.view.slot


@method(optional=1)
def get_slot(node: Node, params: Params) -> Json:
    return _slot(node, node.context_config(params, 0))


@method(optional=1)
def get_block_height(node: Node, params: Params) -> Json:
    return _slot(node, node.context_config(params, 0))


@method(required=1)
def get_block_time(node: Node, params: Params) -> Json:
    slot = params.integer(0)
    found = block_time(node, slot)
    if found is None:
        raise _missing(node, slot)
    return found


@method()
def get_first_available_block(node: Node, params: Params) -> Json:
    return node.history.oldest_slot()


@method()
def minimum_ledger_slot(node: Node, params: Params) -> Json:
    return node.history.oldest_slot()


@method()
def get_highest_snapshot_slot(node: Node, params: Params) -> Json:
    raise RpcError(-32008, "No snapshot")


@method()
def get_max_retransmit_slot(node: Node, params: Params) -> Json:
    return node.view.slot


@method()
def get_max_shred_insert_slot(node: Node, params: Params) -> Json:
    return node.view.slot


def _missing(node: Node, slot: int) -> RpcError:
    oldest = node.history.oldest_slot()
    if slot < oldest:
        return RpcError(
            BLOCK_CLEANED_UP,
            f"Block {slot} cleaned up, does not exist on node. First available block: {oldest}",
        )
    return RpcError(BLOCK_NOT_AVAILABLE, f"Block not available for slot {slot}")


@method(required=1, optional=1)
def get_block(node: Node, params: Params) -> Json:
    """A past slot's block: a block is complete, and has its hash, when the next slot begins."""
    slot = params.integer(0)
    config = string_config(params, 1)
    encoding = txencode.encoding_of(config)
    version = config.get("maxSupportedTransactionVersion", int, None)
    details = config.get("transactionDetails", str, "full")
    if details not in ("full", "accounts", "signatures", "none"):
        raise invalid_params(txencode.UNKNOWN_ENCODING)
    config.need_confirmed()
    # The database may be one commit ahead of what is published, `last_id` below included.
    row = node.history.slot(slot) if slot < node.view.slot else None
    following = node.history.slot(slot + 1)
    if row is None or following is None:
        raise _missing(node, slot)
    block = _header(slot, row, following)
    rewards: Json = [] if config.get("rewards", bool, True) else None
    if rewards is not None:
        block["rewards"] = rewards
    if details == "none":
        return block
    included = [
        (signature, tx, {**meta, "rewards": rewards})
        for signature, tx, meta in node.history.block(slot, node.view.last_id)
    ]
    if details == "signatures":
        block["signatures"] = [str(Signature.from_bytes(signature)) for signature, _, _ in included]
    elif details == "full":
        block["transactions"] = [txencode.encode(raw, meta, encoding, version) for _, raw, meta in included]
    else:
        block["transactions"] = [_accounts_only(raw, meta, version) for _, raw, meta in included]
    return block


def _header(slot: int, row: SlotRow, following: SlotRow) -> dict[str, Json]:
    return {
        "blockHeight": slot,
        "blockTime": row.time,
        "blockhash": text(following.blockhash),
        "previousBlockhash": text(row.blockhash),
        "parentSlot": max(0, slot - 1),
    }


def _accounts_only(raw: bytes, meta: dict[str, Json], version: int | None) -> dict[str, Json]:
    from solders.transaction import VersionedTransaction

    tx = VersionedTransaction.from_bytes(raw)
    encoded = txencode.encode(raw, meta, "base64", version)
    encoded["transaction"] = {
        "signatures": [str(signature) for signature in tx.signatures],
        "accountKeys": txencode.account_keys(parse(tx), meta),
    }
    kept = (
        "err",
        "status",
        "fee",
        "preBalances",
        "postBalances",
        "preTokenBalances",
        "postTokenBalances",
        "rewards",
    )
    encoded["meta"] = {name: meta[name] for name in kept}
    return encoded


def _range(node: Node, first: int, last: int) -> Json:
    last = min(last, node.view.slot - 1)
    if last - first > MAX_BLOCKS:
        raise invalid_params(f"Slot range too large; max {MAX_BLOCKS}")
    return node.history.slots(first, last, MAX_BLOCKS) if first <= last else []


@method(required=1, optional=2)
def get_blocks(node: Node, params: Params) -> Json:
    first, second = params.integer(0), 1
    last = None
    if not isinstance(params.peek(1), dict):
        last, second = params.integer(1, None), 2
    params.config(second).need_confirmed()
    return _range(node, first, node.view.slot - 1 if last is None else last)


@method(required=2, optional=1)
def get_blocks_with_limit(node: Node, params: Params) -> Json:
    limit = params.integer(1, kind="usize")
    params.config(2).need_confirmed()
    if limit > MAX_BLOCKS:
        raise invalid_params(f"Limit too large; max {MAX_BLOCKS}")
    found: list[int] = _range(node, params.integer(0), params.integer(0) + limit - 1 if limit else -1)
    return found


@method(optional=1)
def get_epoch_info(node: Node, params: Params) -> Json:
    slot = _slot(node, node.context_config(params, 0))
    return {
        "absoluteSlot": slot,
        "blockHeight": slot,
        "epoch": slot // SLOTS_PER_EPOCH,
        "slotIndex": slot % SLOTS_PER_EPOCH,
        "slotsInEpoch": SLOTS_PER_EPOCH,
        "transactionCount": node.view.last_id,
    }


@method()
def get_epoch_schedule(node: Node, params: Params) -> Json:
    return {
        "firstNormalEpoch": 0,
        "firstNormalSlot": 0,
        "leaderScheduleSlotOffset": SLOTS_PER_EPOCH,
        "slotsPerEpoch": SLOTS_PER_EPOCH,
        "warmup": False,
    }


@method(optional=1)
def get_recent_performance_samples(node: Node, params: Params) -> Json:
    limit = params.integer(0, _MAX_SAMPLES, kind="usize")
    if limit > _MAX_SAMPLES:
        raise invalid_params(f"Invalid limit; max {_MAX_SAMPLES}")
    samples: list[Json] = []
    last = node.view.slot // _SAMPLE_SLOTS * _SAMPLE_SLOTS
    while len(samples) < limit and last >= _SAMPLE_SLOTS:
        first = last - _SAMPLE_SLOTS
        begin, end = block_time(node, first), block_time(node, last)
        if begin is None or end is None:
            break
        count = node.history.transactions_in(first, last - 1)
        samples.append(
            {
                "slot": last,
                "numSlots": _SAMPLE_SLOTS,
                "numTransactions": count,
                "numNonVoteTransactions": count,
                "samplePeriodSecs": max(1, end - begin),
            }
        )
        last = first
    return samples
