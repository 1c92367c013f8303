"""What a node says of itself and of its cluster, which is this one process."""

from __future__ import annotations

from localnet.chain.errors import BLOCK_NOT_AVAILABLE, NODE_UNHEALTHY, RpcError, invalid_params
from localnet.chain.records import SLOTS_PER_EPOCH, Json
from localnet.chain.rpc.encode import usize
from localnet.chain.rpc.params import Params, address, missing_field, strict_commitment, wrong_type
from localnet.chain.rpc.registry import VERSION, Node, method
from localnet.chain.txmeta import text

FEATURE_SET = 3640012085
_MAX_LEADERS = 5_000


@method()
def get_health(node: Node, params: Params) -> Json:
    if node.bank.failed is not None:
        raise RpcError(NODE_UNHEALTHY, "Node is unhealthy", {"numSlotsBehind": None})
    return "ok"


@method()
def get_version(node: Node, params: Params) -> Json:
    return {"solana-core": VERSION, "feature-set": FEATURE_SET}


@method()
def get_identity(node: Node, params: Params) -> Json:
    return {"identity": str(node.bank.identity)}


@method()
def get_genesis_hash(node: Node, params: Params) -> Json:
    return text(node.bank.genesis_hash)


@method()
def get_cluster_nodes(node: Node, params: Params) -> Json:
    """One node, with no ports but the RPC's: transactions enter by sendTransaction only."""
    return [
        {
            "pubkey": str(node.bank.identity),
            "featureSet": FEATURE_SET,
            "gossip": None,
            "pubsub": None,
            "rpc": None,
            "serveRepair": None,
            "shredVersion": 1,
            "tpu": None,
            "tpuForwards": None,
            "tpuForwardsQuic": None,
            "tpuQuic": None,
            "tpuVote": None,
            "tvu": None,
            "version": VERSION,
        }
    ]


@method(optional=1)
def get_vote_accounts(node: Node, params: Params) -> Json:
    """Nobody votes on this chain."""
    key = params.config(0, "RpcGetVoteAccountsConfig").get("votePubkey", str, None)
    if key is not None:
        address(key)
    return {"current": [], "delinquent": []}


@method(optional=1)
def get_slot_leader(node: Node, params: Params) -> Json:
    node.context_config(params, 0)
    return str(node.bank.identity)


@method(required=2)
def get_slot_leaders(node: Node, params: Params) -> Json:
    first, limit = params.integer(0), params.integer(1)
    if limit > _MAX_LEADERS:
        raise invalid_params(f"Invalid limit; max {_MAX_LEADERS}")
    epoch = first // SLOTS_PER_EPOCH
    if epoch > node.view.slot // SLOTS_PER_EPOCH + 1:
        raise invalid_params(f"Invalid slot range: leader schedule for epoch {epoch} is unavailable")
    return [str(node.bank.identity)] * limit


@method(optional=2)
def get_leader_schedule(node: Node, params: Params) -> Json:
    first = isinstance(params.peek(0), dict)
    slot = None if first else params.integer(0, None)
    config = params.config(0 if first else 1, "RpcLeaderScheduleConfig")
    wanted = config.get("identity", str, None)
    if wanted is not None and address(wanted) != bytes(node.bank.identity):
        return {}
    if slot is not None and slot // SLOTS_PER_EPOCH > node.view.slot // SLOTS_PER_EPOCH:
        return None
    return {str(node.bank.identity): list(range(SLOTS_PER_EPOCH))}


@method(optional=1)
def get_block_production(node: Node, params: Params) -> Json:
    config = params.config(0, "RpcBlockProductionConfig")
    wanted = config.get("identity", str, None)
    others = wanted is not None and address(wanted) != bytes(node.bank.identity)
    span = config.get("range", dict, {})
    now = node.view.slot
    first = usize(span, "firstSlot") if span else now // SLOTS_PER_EPOCH * SLOTS_PER_EPOCH
    last = now if span.get("lastSlot") is None else usize(span, "lastSlot")
    if last < first:
        raise invalid_params(f"lastSlot, {last}, cannot be less than firstSlot, {first}")
    if last > now:
        raise invalid_params(f"lastSlot, {last}, is too large; max {now}")
    count = last - first + 1
    return node.with_context(
        {
            "byIdentity": {} if others else {str(node.bank.identity): [count, count]},
            "range": {"firstSlot": first, "lastSlot": last},
        }
    )


@method(required=1)
def get_block_commitment(node: Node, params: Params) -> Json:
    """Nobody votes here, so no stake stands behind a block: it is as final as its commit."""
    params.integer(0)
    return {"commitment": None, "totalStake": 0}


@method(optional=1)
def get_inflation_governor(node: Node, params: Params) -> Json:
    """No inflation; the one method that takes today's three commitments only."""
    config = params.config(0, "CommitmentConfig")
    if params.peek(0) is not None:
        if "commitment" not in config.raw():
            raise missing_field("commitment")
        strict_commitment(config, "commitment")
    return {"foundation": 0.0, "foundationTerm": 0.0, "initial": 0.0, "taper": 1.0, "terminal": 0.0}


@method()
def get_inflation_rate(node: Node, params: Params) -> Json:
    epoch = node.view.slot // SLOTS_PER_EPOCH
    return {"epoch": epoch, "foundation": 0.0, "total": 0.0, "validator": 0.0}


@method(required=1, optional=1)
def get_inflation_reward(node: Node, params: Params) -> Json:
    keys = params.array(0)
    for key in keys:
        if not isinstance(key, str):
            raise wrong_type(key, "a string")
        address(key)
    config = node.context_config(params, 1, "RpcEpochConfig")
    now = node.view.slot // SLOTS_PER_EPOCH
    epoch = config.get("epoch", int, max(0, now - 1))
    if epoch >= now:
        first = (epoch + 1) * SLOTS_PER_EPOCH
        raise RpcError(BLOCK_NOT_AVAILABLE, f"Block not available for slot {first}")
    return [None] * len(keys)


@method(optional=1)
def get_stake_minimum_delegation(node: Node, params: Params) -> Json:
    node.context_config(params, 0)
    return node.with_context(1)
