"""What a node says of itself and of its cluster, which is this one process."""

from __future__ import annotations

from localnet.chain.errors import NODE_UNHEALTHY, RpcError, invalid_params
from localnet.chain.records import SLOTS_PER_EPOCH, Json
from localnet.chain.rpc.params import Params
from localnet.chain.rpc.registry import VERSION, Node, method
from localnet.chain.txmeta import text

FEATURE_SET = 3640012085
_MAX_LEADERS = 5_000


@method
def get_health(node: Node, params: Params) -> Json:
    if node.bank.failed is not None:
        raise RpcError(NODE_UNHEALTHY, "Node is unhealthy", {"numSlotsBehind": None})
    return "ok"


@method
def get_version(node: Node, params: Params) -> Json:
    return {"solana-core": VERSION, "feature-set": FEATURE_SET}


@method
def get_identity(node: Node, params: Params) -> Json:
    return {"identity": str(node.bank.identity)}


@method
def get_genesis_hash(node: Node, params: Params) -> Json:
    return text(node.bank.genesis_hash)


@method
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


@method
def get_vote_accounts(node: Node, params: Params) -> Json:
    return {"current": [], "delinquent": []}


@method
def get_slot_leader(node: Node, params: Params) -> Json:
    return str(node.bank.identity)


@method
def get_slot_leaders(node: Node, params: Params) -> Json:
    params.integer(0)
    limit = params.integer(1)
    if not 1 <= limit <= _MAX_LEADERS:
        raise invalid_params(f"Invalid limit; max {_MAX_LEADERS}")
    return [str(node.bank.identity)] * limit


@method
def get_leader_schedule(node: Node, params: Params) -> Json:
    slot = params.integer(0, None) if len(params) and not isinstance(params.peek(0), dict) else None
    if slot is not None and slot // SLOTS_PER_EPOCH > node.view.slot // SLOTS_PER_EPOCH:
        return None
    return {str(node.bank.identity): list(range(SLOTS_PER_EPOCH))}


@method
def get_block_production(node: Node, params: Params) -> Json:
    last = node.view.slot
    first = last // SLOTS_PER_EPOCH * SLOTS_PER_EPOCH
    count = last - first + 1
    return node.with_context(
        {
            "byIdentity": {str(node.bank.identity): [count, count]},
            "range": {"firstSlot": first, "lastSlot": last},
        }
    )


@method
def get_block_commitment(node: Node, params: Params) -> Json:
    """Nobody votes here, so no stake stands behind a block: it is as final as its commit."""
    params.integer(0)
    return {"commitment": None, "totalStake": 0}


@method
def get_inflation_governor(node: Node, params: Params) -> Json:
    return {"foundation": 0.0, "foundationTerm": 0.0, "initial": 0.0, "taper": 1.0, "terminal": 0.0}


@method
def get_inflation_rate(node: Node, params: Params) -> Json:
    epoch = node.view.slot // SLOTS_PER_EPOCH
    return {"epoch": epoch, "foundation": 0.0, "total": 0.0, "validator": 0.0}


@method
def get_inflation_reward(node: Node, params: Params) -> Json:
    return [None] * len(params.array(0))


@method
def get_stake_minimum_delegation(node: Node, params: Params) -> Json:
    return node.with_context(1)
