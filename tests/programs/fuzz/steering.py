"""What the authority's instructions of the coordinator must do to the accounts, sent by itself or by a pool."""

import hashlib
from typing import Any

from tests.programs.fuzz import rules
from tests.programs.fuzz.accounts import SPACE, Record, Zeros
from tests.programs.fuzz.log import Log, Slot, account_size
from tests.programs.fuzz.model import Call, Model, handles
from tests.programs.fuzz.packing import CONFIG
from tests.programs.fuzz.rules import need

RUN_ID = set("abcdefghijklmnopqrstuvwxyz0123456789-")
CAPACITY = {account_size(n): n for n in range(1, 257)}
SPEC_HEAD = SPACE["Spec"]


def check_texts(args: dict[str, Any]) -> None:
    """Bounds of a run's texts."""
    need(len(args["name"].encode()) <= 64, "NameTooLong")
    need(len(args["description"].encode()) <= 280, "DescriptionTooLong")
    need(len(args["min_client_version"].encode()) <= 32, "ClientVersionTooLong")


@handles("coordinator.create_run")
def create_run(m: Model, c: Call) -> None:
    args = c.args["args"]
    start_run(m, c, args, c["creator"], args["authority"])


def start_run(m: Model, c: Call, args: dict[str, Any], creator: str, authority: str) -> None:
    """A run, its empty log and its empty specification."""
    run, spec, state = c["run"], c["spec"], c["run_state"]
    need(m.same(run, f"run/{creator}/{args['run_id'][:32]}"))
    need(m.same(spec, f"spec/{run}"))
    need(m.is_unused(run) and m.is_unused(spec))
    here = m.accounts.get(state)
    need(here is not None and here.owner == "COORDINATOR", "WrongRunState")
    assert here is not None
    run_id = args["run_id"]
    need(0 < len(run_id) <= 32 and set(run_id) <= RUN_ID, "RunIdInvalid")
    check_texts(args)
    need(1 <= args["spec_len"] <= 10_000, "SpecLength")
    need(authority != "zero", "AuthorityMissing")
    need(isinstance(here.data, Zeros), "RunStateNotEmpty")
    capacity = CAPACITY.get(here.size)
    need(capacity is not None, "WrongSize")
    assert capacity is not None
    record = Record(
        "Run",
        version=1,
        bump=m.keys.bump(run),
        spec_bump=m.keys.bump(spec),
        creator=creator,
        authority=authority,
        join_authority=args["join_authority"],
        run_state=state,
        spec_len=args["spec_len"],
        spec_sha256=bytes.fromhex(args["spec_sha256"]),
        run_id=run_id,
        name=args["name"],
        description=args["description"],
        min_client_version=args["min_client_version"],
    )
    m.create(run, record, "COORDINATOR", c["payer"])
    head = Record("Spec", size=SPEC_HEAD, run=run, sealed=False, bump=m.keys.bump(spec), len=0)
    m.create(spec, head, "COORDINATOR", c["payer"])
    m.ledgers.pop(
        (state, m.slot), None
    )  # a life of the same slot is not told apart: `check_pay` sees if that matters
    here.data = Log(run, capacity, m.slot, [Slot() for _ in range(capacity)])


def own_run(m: Model, c: Call, authority: str) -> Record:
    run = m.record(c["run"], "Run")
    need(run.authority == authority, "WrongAuthority")
    return run


def own_log(m: Model, c: Call, authority: str) -> Log:
    """The log of a run that the authority steers."""
    need(own_run(m, c, authority).run_state == c["run_state"], "WrongRunState")
    return m.log(c["run_state"])


def own_spec(m: Model, c: Call) -> Record:
    spec = m.record(c["spec"], "Spec")
    need(spec.run == c["run"], "WrongSpec")
    return spec


# what the authority does; `authority` is the signer or, through a pool, the pool


def do_configure(m: Model, c: Call, authority: str, args: dict[str, Any]) -> None:
    config = args["config"]
    values = dict(config, pay_per_tier=b"".join(p.to_bytes(4, "little") for p in config["pay_per_tier"]))
    packed = CONFIG.pack(*(values[f] for f in CONFIG.fields))
    rules.configure(own_log(m, c, authority), m.now, config, packed)


def do_set_round_rate(m: Model, c: Call, authority: str, args: dict[str, Any]) -> None:
    rules.set_round_rate(own_log(m, c, authority), args["rate"])


def do_set_paused(m: Model, c: Call, authority: str, args: dict[str, Any]) -> None:
    rules.set_paused(own_log(m, c, authority), m.now, args["paused"])


def do_reset_spec(m: Model, c: Call, authority: str, args: dict[str, Any]) -> None:
    log, spec = own_log(m, c, authority), own_spec(m, c)
    need(1 <= args["spec_len"] <= 10_000, "SpecLength")
    rules.unseal(log, m.now)
    run = m.record(c["run"], "Run")
    run.spec_len, run.spec_sha256 = args["spec_len"], bytes.fromhex(args["spec_sha256"])
    spec.sealed, spec.len, spec.tail, spec.size = False, 0, b"", SPEC_HEAD


def do_write_spec(m: Model, c: Call, authority: str, args: dict[str, Any]) -> None:
    run = own_run(m, c, authority)
    need(run.run_state == c["run_state"], "WrongRunState")
    spec = own_spec(m, c)
    need(not spec.sealed, "SpecSealed")
    piece, offset = bytes.fromhex(args["bytes"]), args["offset"]
    end = offset + len(piece)
    need(end <= run.spec_len, "SpecTooLong")
    need(offset <= spec.len, "SpecGap")
    size = max(spec.size, SPEC_HEAD + max(end, spec.len))
    if size > spec.size:
        m.pay_rent(c["spec"], size, c["payer"])
    spec.size = size
    spec.tail = spec.tail[:offset] + piece + spec.tail[end:]
    spec.len = max(end, spec.len)


def do_seal_spec(m: Model, c: Call, authority: str, _args: dict[str, Any]) -> None:
    run = own_run(m, c, authority)
    need(run.run_state == c["run_state"], "WrongRunState")
    spec = own_spec(m, c)
    need(not spec.sealed, "SpecSealed")
    need(spec.len == run.spec_len, "SpecIncomplete")
    digest = hashlib.sha256(spec.tail[: spec.len]).digest()
    need(digest == run.spec_sha256, "SpecHashDiffers")
    rules.seal(m.log(c["run_state"]), m.now, digest)
    spec.sealed = True


def do_set_metadata(m: Model, c: Call, authority: str, args: dict[str, Any]) -> None:
    run = own_run(m, c, authority)
    check_texts(args)
    for name in ("name", "description", "min_client_version", "join_authority"):
        setattr(run, name, args[name])


ADMIN = {
    "configure": do_configure,
    "set_round_rate": do_set_round_rate,
    "set_paused": do_set_paused,
    "reset_spec": do_reset_spec,
    "write_spec": do_write_spec,
    "seal_spec": do_seal_spec,
    "set_metadata": do_set_metadata,
}


def _direct(name: str) -> None:
    @handles(f"coordinator.{name}")
    def handler(m: Model, c: Call) -> None:
        ADMIN[name](m, c, c["authority"], c.args)


for _name in ADMIN:
    _direct(_name)


@handles("coordinator.set_authority")
def set_authority(m: Model, c: Call) -> None:
    run = own_run(m, c, c["authority"])
    need(c.args["authority"] != "zero", "AuthorityMissing")
    run.authority = c.args["authority"]


@handles("coordinator.close_run")
def close_run(m: Model, c: Call) -> None:
    end_run(m, c, c["authority"], c["recipient"])


def end_run(m: Model, c: Call, authority: str, recipient: str) -> None:
    """Run, log and specification end; every lamport goes to the recipient."""
    need(recipient != c["run_state"], "RecipientCloses")
    need(recipient not in (c["run"], c["spec"]))
    log = own_log(m, c, authority)
    own_spec(m, c)
    rules.check_closable(log)
    need(log.total_earned == 0 or m.slot > log.created_slot, "ClosedTooSoon")
    m.ledgers[c["run_state"], log.created_slot] = log.credits
    for name in (c["run_state"], c["run"], c["spec"]):
        m.close(name, recipient)
