"""What the instructions of the coordinator that members and anybody send must do to the accounts."""

from tests.programs.fuzz import phases, rules
from tests.programs.fuzz.accounts import Record
from tests.programs.fuzz.log import FREE, Log
from tests.programs.fuzz.model import Call, Model, handles
from tests.programs.fuzz.rules import Refuse, need

# what members do


def is_admitted(run: Record, authorization: Record | None, wallet: str, weight: int, tier: int) -> str:
    """Why a wallet may not be a member with this weight and tier; empty if it may."""
    if run.join_authority == "zero":
        return "" if weight == 1 else "OpenRunWeight"
    if authorization is None:
        return "AuthorizationMissing"
    covered = wallet == authorization.grantee or wallet in authorization.delegates
    if not covered or authorization.grantor != run.join_authority:
        return "WrongAuthorization"
    if not authorization.active:
        return "AuthorizationInactive"
    if weight > authorization.max_weight:
        return "WeightNotAllowed"
    return "TierNotAllowed" if tier < authorization.min_tier else ""


def tick_after(m: Model, c: Call, log: Log) -> None:
    """Whatever is due happens, but only at the end of a transaction: nobody may undo what is drawn."""
    if c.is_last:
        phases.tick(log, m.now, m.slot_hash)


@handles("coordinator.join")
def join(m: Model, c: Call) -> None:
    run = m.record(c["run"], "Run")
    need(run.run_state == c["run_state"], "WrongRunState")
    wallet, state, args = c["wallet"], c["run_state"], c.args["args"]
    name = c["membership"]
    need(m.same(name, f"member/{state}/{wallet}"))
    authorization = c.accounts.get("authorization")
    grant = m.record(authorization, "Authorization") if authorization else None
    log = m.log(state)
    need(len(args["contact"].encode()) <= 128, "ContactTooLong")
    refusal = is_admitted(run, grant, wallet, args["weight"], args["tier"])
    need(not refusal, refusal)
    p2p_key = bytes.fromhex(args["p2p_key"])
    fresh = m.is_unused(name)
    member = None if fresh else m.record(name, "Membership")
    if member is not None and member.created_slot != log.created_slot:
        need(member.earned == 0, "MembershipOfEarlierRun")
    slot = rules.join(log, m.now, wallet, args["hot_key"], p2p_key, args["tier"], args["weight"])
    tick_after(m, c, log)
    if member is None:
        member = Record("Membership", earned=0, created_slot=log.created_slot)
        m.create(name, member, "COORDINATOR", c["payer"])
    member.created_slot = log.created_slot
    member.run_state, member.wallet, member.hot_key, member.p2p_key = state, wallet, args["hot_key"], p2p_key
    member.tier, member.weight, member.slot, member.bump = (
        args["tier"],
        args["weight"],
        slot,
        m.keys.bump(name),
    )
    member.last_epoch, member.contact = log.epoch, args["contact"]
    is_open = run.join_authority == "zero"
    member.authorization = "zero" if is_open or not authorization else authorization


@handles("coordinator.update_contact")
def update_contact(m: Model, c: Call) -> None:
    member = m.record(c["membership"], "Membership")
    need(c["signer"] in (member.wallet, member.hot_key), "WrongMember")
    need(len(c.args["contact"].encode()) <= 128, "ContactTooLong")
    member.contact = c.args["contact"]


@handles("coordinator.ready")
def ready(m: Model, c: Call) -> None:
    log = m.log(c["run_state"])
    rules.ready(log, c.args["slot"], c["signer"])
    tick_after(m, c, log)


@handles("coordinator.commit")
def commit(m: Model, c: Call) -> None:
    log = m.log(c["run_state"])
    rules.commit(log, c.args["slot"], c["signer"], c.args["round"], bytes.fromhex(c.args["hash"]))
    tick_after(m, c, log)


@handles("coordinator.witness")
def witness(m: Model, c: Call) -> None:
    log = m.log(c["run_state"])
    mask = int.from_bytes(bytes.fromhex(c.args["bitmap"]), "little")
    rules.witness(log, c.args["slot"], c["signer"], c.args["round"], mask)
    tick_after(m, c, log)


@handles("coordinator.attest_checkpoint")
def attest_checkpoint(m: Model, c: Call) -> None:
    log = m.log(c["run_state"])
    digests = [bytes.fromhex(d) for d in c.args["digests"]]
    rules.attest_checkpoint(log, c.args["slot"], c["signer"], c.args["step"], digests)
    tick_after(m, c, log)


@handles("coordinator.record_checkpoint")
def record_checkpoint(m: Model, c: Call) -> None:
    log = m.log(c["run_state"])
    rules.record_checkpoint(log, c.args["slot"], c["signer"], c.args["uri"].encode())
    tick_after(m, c, log)


@handles("coordinator.leave")
def leave(m: Model, c: Call) -> None:
    log = m.log(c["run_state"])
    rules.leave(log, c.args["slot"], c["signer"])
    tick_after(m, c, log)


# what anybody does


@handles("coordinator.tick")
def tick(m: Model, c: Call) -> None:
    need(c.is_last, "TickNotLast")
    need(phases.tick(m.log(c["run_state"]), m.now, m.slot_hash) > 0, "NothingDue")


@handles("coordinator.evict")
def evict(m: Model, c: Call) -> None:
    run = m.record(c["run"], "Run")
    need(run.run_state == c["run_state"], "WrongRunState")
    member = m.record(c["membership"], "Membership")
    need(member.run_state == c["run_state"], "WrongRunState")
    need(m.same(c["authorization"], member.authorization), "WrongAuthorization")
    need(run.join_authority != "zero", "StillAuthorized")
    try:
        grant = m.record(c["authorization"], "Authorization")
    except Refuse:
        grant = None
    refusal = is_admitted(run, grant, member.wallet, member.weight, member.tier)
    need(bool(refusal), "StillAuthorized")
    log = m.log(c["run_state"])
    rules.evict(log, member.slot, member.wallet)
    tick_after(m, c, log)


@handles("coordinator.settle")
def settle(m: Model, c: Call) -> None:
    settle_member(m, c)


def settle_member(m: Model, c: Call) -> Record:
    """Moves a slot's pay into the membership account."""
    member = m.record(c["membership"], "Membership")
    need(member.run_state == c["run_state"], "WrongRunState")
    log = m.log(c["run_state"])
    member.earned += rules.settle(log, member.slot, member.wallet)
    return member


@handles("coordinator.close_membership")
def close_membership(m: Model, c: Call) -> None:
    member = m.record(c["membership"], "Membership")
    need(member.wallet == c["wallet"], "WrongMember")
    need(member.run_state == c["run_state"], "WrongRunState")
    state = m.accounts.get(c["run_state"])
    if state is not None and isinstance(state.data, Log):
        log = m.log(c["run_state"])
        if member.created_slot == log.created_slot:
            need(member.earned == 0, "MembershipEarned")
        here = log.slots[member.slot] if member.slot < log.capacity else None
        owns = here is not None and here.status != FREE and here.wallet == member.wallet
        need(not owns, "MembershipInUse")
    m.close(c["membership"], c["wallet"])
