"""A run at a glance, as plain values that print as text and as JSON."""

from typing import Any

from psyche_chain.admin.report import (
    SCHEMA_VERSION,
    ConfigPart,
    MembershipPart,
    PoolPart,
    RoundPart,
    RunPart,
    ShowReport,
    SlotPart,
    StatusPart,
)
from psyche_chain.chain import accounts
from psyche_chain.chain.accounts import Membership, Run, Snapshot, as_dict
from psyche_chain.chain.errors import DecodeError
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.state import RoundView, RunState, Slot, SlotStatus


def summary(run: Run, snapshot: Snapshot) -> dict[str, Any]:
    """Phase, progress and members of a run."""
    state = snapshot.state
    deadline = state.deadline()
    current = state.current
    present = [s for s in state.members() if s.status is not SlotStatus.DEPARTED]
    return {
        "run": str(run.key),
        "run_id": run.run_id,
        "name": run.name,
        "phase": state.phase.label,
        "seconds_left": None if deadline is None else max(0, deadline - snapshot.clock),
        "epoch": state.epoch,
        "step": state.step,
        "total_steps": state.config.total_steps,
        "round": None if current is None else current.number,
        "draining": state.draining,
        "pause_requested": state.pause_requested,
        "members": len(present),
        "needed": state.config.init_min_clients,
        "capacity": state.capacity,
        "checkpoint_step": state.checkpoint.step if state.checkpoint.agreed else None,
        "weights_sha256": state.checkpoint.weights_hash.hex() if state.checkpoint.agreed else None,
        "checkpoint_uri": state.checkpoint.uri or None,
        "slots": [_slot(state, s) for s in state.members()],
    }


def _slot(state: RunState, slot: Slot) -> dict[str, Any]:
    current = state.current
    doing = slot.status.name.lower()
    if slot.status is SlotStatus.ACTIVE:
        doing = "active" if slot.ready else "not ready"
        if current is not None and slot.index in current.committed:
            doing = "committed"
        elif current is not None and slot.index in current.assigned:
            doing = "training"
    return {
        "slot": slot.index,
        "wallet": str(slot.wallet),
        "tier": slot.tier if slot.status is SlotStatus.ACTIVE else slot.next_tier,
        "weight": slot.weight if slot.status is SlotStatus.ACTIVE else slot.next_weight,
        "state": doing,
        "missed": slot.missed,
        "earned_in_slot": slot.earned,
    }


async def fetch_summary(rpc: RpcPool, run: Run) -> dict[str, Any]:
    return summary(run, await accounts.fetch_snapshot(rpc, run))


async def list_runs(rpc: RpcPool) -> list[dict[str, Any]]:
    """Every run of the cluster in short; one that cannot be read is listed with the reason."""
    rows = []
    for run in await accounts.fetch_runs(rpc):
        try:
            full = await fetch_summary(rpc, run)
        except DecodeError as exc:
            rows.append({"run": str(run.key), "run_id": run.run_id, "name": run.name, "error": exc.message})
            continue
        rows.append({k: v for k, v in full.items() if k != "slots"} | {"open": run.open})
    return rows


async def show(rpc: RpcPool, run: Run) -> dict[str, Any]:
    """Everything that the chain knows of a run, in the shape of `ShowReport`."""
    snapshot = await accounts.fetch_snapshot(rpc, run)
    state = snapshot.state
    spec = await accounts.fetch_spec(rpc, run)
    pool = await accounts.fetch_pool(rpc, run.run_state)
    members: list[Membership] = await accounts.fetch_memberships(rpc, run.run_state)
    full = ShowReport(
        schema_version=SCHEMA_VERSION,
        run=RunPart.pick(as_dict(run)),
        status=_status_part(summary(run, snapshot)),
        config=ConfigPart.pick(as_dict(state.config)),
        spec=None if spec is None else spec.data.decode("utf-8", "replace"),
        spec_sealed=state.spec_sealed,
        history=state.history.hex(),
        nonce=state.nonce,
        round_rate=state.round_rate,
        next_round_rate=state.next_round_rate,
        lost_samples=state.lost_samples,
        rounds=[_round_part(r) for r in state.rounds],
        memberships=[MembershipPart.pick(as_dict(m)) for m in members],
        pool=None if pool is None else PoolPart.pick(as_dict(pool)),
        chain_time=snapshot.clock,
    )
    return full.model_dump()


def _status_part(values: dict[str, Any]) -> StatusPart:
    return StatusPart.pick({**values, "slots": [SlotPart.pick(s) for s in values["slots"]]})


def _round_part(view: RoundView) -> RoundPart:
    sets = ("assigned", "committed", "witnesses", "attested", "accepted")
    return RoundPart(
        number=view.number,
        step=view.step,
        epoch=view.epoch,
        trained=view.trained,
        samples=view.samples,
        status=view.status.name.lower(),
        **{name: sorted(getattr(view, name)) for name in sets},
    )
