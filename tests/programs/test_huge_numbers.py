"""Numbers and lengths out of range in every instruction that takes one: refused by name or harmless, never a panic.

The variants are made from the IDLs, so a new instruction or field is tried by itself, and a new instruction without
a place to try it fails `test_table_names_every_instruction_that_takes_a_number`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from solders.pubkey import Pubkey

from psyche_chain.chain.state import RunState
from tests.programs import stages
from tests.programs.borsh_idl import INTEGERS, Claimed, Idl
from tests.programs.chain_harness import (
    ANCHOR_ERRORS,
    AUTHORIZER,
    COORDINATOR,
    TREASURER,
    Chain,
    Grant,
    Refused,
    Run,
    config,
)

Args = dict[str, Any]
Send = Callable[[Args], object]
LENGTHS = (0, 1, 33, 65, 129, 700)
CLAIMED = (1000, 2**15, 2**20, 2**31, 2**32 - 1)
"""Lengths of strings and lists that do not come. Borsh would take memory for up to a MiB before it looks, and a program
has 32 KiB."""
CREATE: Args = {
    "run_id": "a",
    "name": "n",
    "description": "d",
    "authority": Pubkey.new_unique(),
    "join_authority": Pubkey.default(),
    "min_client_version": "1",
    "spec_len": 5,
    "spec_sha256": bytes(32),
}
METADATA: Args = {k: CREATE[k] for k in ("name", "description", "min_client_version", "join_authority")}
NAMED = set(ANCHOR_ERRORS.values()) - {"InstructionDidNotDeserialize"}
for _idl in (COORDINATOR, AUTHORIZER, TREASURER):
    NAMED |= set(_idl.errors.values())


def numbers_of(kind: Any, idl: Idl) -> Iterator[str]:
    """The integer, string and list types in an argument's type."""
    if isinstance(kind, str):
        yield from [kind] * (kind in INTEGERS or kind in ("string", "bytes"))
    elif "vec" in kind:
        yield "vec"
    elif "array" in kind:
        yield from () if kind["array"][0] == "u8" else numbers_of(kind["array"][0], idl)
    else:
        defined = idl.types[kind["defined"]["name"]]
        fields = [
            *defined.get("fields", ()),
            *(f for v in defined.get("variants", ()) for f in v.get("fields", ())),
        ]
        for field in fields:
            yield from numbers_of(field["type"], idl)


def variants(kind: Any, value: Any, idl: Idl) -> Iterator[Any]:
    """`value` with one number or length in it changed to an extreme one."""
    if isinstance(kind, str):
        if kind in INTEGERS:
            bits = 8 * int(kind[1:]) // 8
            yield from {0, 1, 2 ** (bits - 1), 2**bits - 2, 2**bits - 1, 255, 256 % 2**bits} - {value}
        elif kind in ("string", "bytes"):
            unit = "x" if kind == "string" else b"x"
            yield from (unit * n for n in LENGTHS)
            yield from map(Claimed, CLAIMED)
    elif "vec" in kind:
        item = {"pubkey": Pubkey.default()}.get(str(kind["vec"]), bytes(32))
        yield from ([item] * n for n in (0, 1, 3, 4, 20))
        yield from map(Claimed, CLAIMED)
    elif "array" in kind:
        if kind["array"][0] != "u8":
            for i in range(len(value)):
                for v in variants(kind["array"][0], value[i], idl):
                    yield [*value[:i], v, *value[i + 1 :]]
    else:
        defined = idl.types[kind["defined"]["name"]]
        if defined["kind"] == "struct":
            for f in defined["fields"]:
                for v in variants(f["type"], value[f["name"]], idl):
                    yield value | {f["name"]: v}
        else:
            name, fields = value
            (chosen,) = (v for v in defined["variants"] if v["name"] == name)
            for f in chosen.get("fields", []):
                for v in variants(f["type"], fields[f["name"]], idl):
                    yield name, fields | {f["name"]: v}


def args_of(idl: Idl, name: str, base: Args) -> Iterator[Args]:
    for a in idl.instructions[name]["args"]:
        for v in variants(a["type"], base[a["name"]], idl):
            yield base | {a["name"]: v}


def by_authority(stage: Callable[[Chain], Run], name: str) -> Callable[[Chain], tuple[Run, Send]]:
    def make(chain: Chain) -> tuple[Run, Send]:
        run = stage(chain)
        return run, lambda args: run.act(name, **args)

    return make


def by_member(stage: Callable[..., stages.Team], name: str, **rules: Any) -> Callable[..., tuple[Run, Send]]:
    def make(chain: Chain) -> tuple[Run, Send]:
        run, members = stage(chain, **rules)
        if stage is stages.training:
            run.play_round(members)  # then there is a round to attest
        accounts = run.member_accounts(members[0])
        key = members[0].hot_key
        return run, lambda args: chain.send(COORDINATOR.instruction(name, accounts, **args), key)

    return make


def create_run(chain: Chain) -> tuple[Run, Send]:
    return stages.created(chain), lambda args: Run(chain, run_id="a").create(**args["args"])


def create_pool(chain: Chain) -> tuple[Run, Send]:
    mint = chain.mint(chain.keypair())
    return stages.created(chain), lambda args: Run(chain, run_id="a", mint=mint).create(**args["args"])


def join(chain: Chain) -> tuple[Run, Send]:
    """A run that admits any weight and tier that its machine allows."""
    run, authority = stages.guarded(chain, init_min_clients=16)

    def send(args: Args) -> None:
        member = run.member()
        stages.admit(run, authority, member, max_weight=2**16 - 1)
        run.join(member, **args["args"])

    return run, send


def grants(name: str) -> Callable[[Chain], tuple[Run, Send]]:
    def make(chain: Chain) -> tuple[Run, Send]:
        run = stages.created(chain)

        def send(args: Args) -> None:
            grant = Grant(chain, chain.keypair(), chain.keypair())
            if name == "create":
                if not isinstance(args["scope"], Claimed):
                    grant.scope = args["scope"]
                grant.act("create", grant.grantor, **args | {"grantee": grant.grantee.pubkey()})
            else:
                grant.create()
                signer = grant.grantee if name == "set_delegates" else grant.grantor
                grant.act(name, signer, **args)

        return run, send

    return make


def pool_action(chain: Chain) -> tuple[Run, Send]:
    run = stages.pooled(chain, chain.keypair())

    def send(args: Args) -> None:
        chain.send(TREASURER.instruction("update_pool", run.accounts, action=args["action"]), run.creator)

    return run, send


JOIN: Args = {"hot_key": Pubkey.default(), "p2p_key": b"\3" * 32, "tier": 0, "weight": 1, "contact": "c"}
CASES: list[tuple[Idl, str, Callable[[Chain], tuple[Run, Send]], Args]] = [
    (COORDINATOR, "create_run", create_run, {"args": CREATE}),
    (
        COORDINATOR,
        "reset_spec",
        by_authority(stages.paused, "reset_spec"),
        {"spec_len": 5, "spec_sha256": bytes(32)},
    ),
    (COORDINATOR, "write_spec", by_authority(stages.created, "write_spec"), {"offset": 0, "bytes": b"x"}),
    (COORDINATOR, "configure", by_authority(stages.created, "configure"), {"config": config()}),
    (COORDINATOR, "set_round_rate", by_authority(stages.created, "set_round_rate"), {"rate": 5}),
    (COORDINATOR, "set_metadata", by_authority(stages.created, "set_metadata"), METADATA),
    (COORDINATOR, "join", join, {"args": JOIN}),
    (COORDINATOR, "update_contact", by_member(stages.warmup, "update_contact"), {"contact": "c"}),
    (AUTHORIZER, "create", grants("create"), {"grantee": 0, "scope": b"s", "max_weight": 1, "min_tier": 0}),
    (AUTHORIZER, "set_limits", grants("set_limits"), {"max_weight": 1, "min_tier": 0}),
    (AUTHORIZER, "set_delegates", grants("set_delegates"), {"add": [], "clear": False}),
    (TREASURER, "create_pool", create_pool, {"args": CREATE}),
]
for _stage in (stages.warmup, stages.training, stages.cooldown):
    for _name, _rest in (
        ("ready", {}),
        ("leave", {}),
        ("commit", {"round": 2, "hash": bytes(32)}),
        ("witness", {"round": 1, "bitmap": bytes(32)}),
        ("attest_checkpoint", {"step": 4, "digests": [bytes(32)] * 2}),
        ("record_checkpoint", {"uri": "u"}),
    ):
        CASES.append((COORDINATOR, _name, by_member(_stage, _name), {"slot": 0} | _rest))
for _action in (
    ("Configure", {"config": config()}),
    ("SetRoundRate", {"rate": 5}),
    ("ResetSpec", {"spec_len": 5, "spec_sha256": bytes(32)}),
    ("WriteSpec", {"offset": 0, "bytes": b"x"}),
    ("SetMetadata", METADATA),
):
    CASES.append((TREASURER, "update_pool", pool_action, {"action": _action}))


@pytest.mark.parametrize("idl", [COORDINATOR, AUTHORIZER, TREASURER])
def test_table_names_every_instruction_that_takes_a_number(idl):
    taking = {
        name
        for name, ix in idl.instructions.items()
        if any(True for a in ix["args"] for _ in numbers_of(a["type"], idl))
    }
    assert {name for case_idl, name, *_ in CASES if case_idl is idl} == taking
    if idl is TREASURER:
        actions = {v["name"] for v in idl.types["PoolAction"]["variants"] if v.get("fields")}
        tried = {args["action"][0] for *_, args in CASES if "action" in args}
        assert actions - tried == {"SetPaused", "SetAuthority"}  # no number in these


def claim_in(value: Any) -> int:
    """The length that something in the arguments claims to have; 0 if nothing claims."""
    if isinstance(value, Claimed):
        return value.length
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return max(map(claim_in, parts), default=0)


def attempt(send: Send, args: Args) -> str | None:
    """The name of the error, or None if all went well."""
    try:
        send(args)
    except Refused as error:
        return error.name
    return None


@pytest.mark.parametrize(("idl", "name", "make", "base"), CASES)
def test_numbers_out_of_range(chain, idl, name, make, base):
    run, send = make(chain)
    outcomes = []
    for args in args_of(idl, name, base):
        before = chain.data(run.log.pubkey())
        error = attempt(send, args)
        if claim_in(args):
            assert error == "InstructionDidNotDeserialize", args
        elif error is not None:
            assert error in NAMED, args
        if error is None:
            RunState.from_account(chain.data(run.log.pubkey()))  # every index in it is in its range
        else:
            assert chain.data(run.log.pubkey()) == before
        outcomes.append(error)
    assert len(outcomes) > 4
    assert any(outcomes)


def test_run_with_the_largest_rules_trains_and_pays(chain):
    """Everything at its upper end at once: nothing overflows on the way to the end of an epoch."""
    longest = 315_360_000
    times = ("warmup", "cooldown", "max_round_train", "round_witness", "epoch")
    rules = {f"{name}_time": longest for name in times} | {
        "global_batch_size_start": 2**24,
        "global_batch_size_end": 2**24,
        "global_batch_size_warmup_tokens": 2**64 - 1,
        "max_seq_len": 2**32 - 1,
        "total_steps": 3,
        "pay_per_tier": [1_000_000] * 4,
        "max_missed": 2**16 - 1,
        "max_failed_warmups": 2**16 - 1,
        "witness_nodes": 32,
        "max_tier": 2,
    }
    authority = chain.keypair()
    run = Run(chain, join_authority=authority.pubkey())
    run.create()
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config(**rules))
    run.act("set_round_rate", rate=2**62)
    run.act("set_paused", paused=False)
    members = [run.member(tier, weight=2**16 - 1) for tier in (0, 1, 2)]
    for m in members:
        stages.admit(run, authority, m, max_weight=2**16 - 1)
        run.join(m)
    run.play_epoch(members)
    state = run.state
    assert (state.step, state.data_index) == (3, 3 * 2**24)
    assert state.total_earned + state.pay_carry == 3 * 2**62
    assert sum(run.settle(m).event("Settled")["earned"] for m in members) == state.total_earned


@pytest.mark.parametrize("size", [1232, 1233, 2400, 3400, 4096, 4097, 10_000])
def test_arguments_that_only_another_program_can_send(chain, size):
    """A call carries up to 10 KiB, a transaction 1,232 bytes: what a program's memory does not bear is refused."""
    texts = dict.fromkeys(("name", "description", "min_client_version"), "x" * size)
    piece = {"offset": 0, "bytes": b"x" * size}
    keys = [Pubkey.new_unique() for _ in range(size // 32)]
    pool, run = stages.pooled(chain, chain.keypair()), stages.created(chain)
    grant = Grant(chain, chain.keypair(), chain.keypair())
    grant.create()
    other, members = stages.cooldown(chain)
    digests = {"slot": 0, "step": 4, "digests": [bytes(32)] * (size // 32)}
    calls: list[Send] = [
        lambda _: run.act("set_metadata", **METADATA | texts),
        lambda _: pool.act("set_metadata", **METADATA | texts),
        lambda _: Run(chain).create(**texts),
        lambda _: Run(chain, mint=pool.mint).create(**texts),
        lambda _: run.act("write_spec", **piece),
        lambda _: pool.act("write_spec", **piece),
        lambda _: grant.act("set_delegates", grant.grantee, add=keys, clear=True),
        lambda _: other.duty("attest_checkpoint", members[0], **digests),
    ]
    refusals = [attempt(send, {}) for send in calls]
    assert set(refusals) <= NAMED | {"InstructionDidNotDeserialize", None}
    assert refusals[0] == ("NameTooLong" if size <= 1232 else "InstructionDidNotDeserialize")
    assert (refusals[6] == "InstructionDidNotDeserialize") == (len(keys) > 128)
