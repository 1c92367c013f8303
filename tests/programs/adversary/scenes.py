"""For every instruction a state in which it succeeds, and the call that does: the adversary starts from these.

A scene is named by its instruction, or by that and a variant (`update_pool:SealSpec`). A factory gives the call on the
first or the second run of its stage's pair. Another instruction in an IDL needs another factory: a test says so.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account

from tests.programs.adversary import stages
from tests.programs.adversary.call import Call, make_call
from tests.programs.adversary.stages import Stage, Stages
from tests.programs.adversary.world import World
from tests.programs.borsh_idl import Idl
from tests.programs.chain_harness import (
    AUTHORIZER,
    COORDINATOR,
    JOIN_SCOPE,
    SPEC,
    SYSTEM,
    TREASURER,
    Grant,
    Run,
    config,
    seed,
)
from tests.programs.run_state_view import account_size

Factory = Callable[[Stages, str, int], Call]
FACTORIES: dict[str, Factory] = {}


@dataclass(frozen=True)
class Scene:
    """A valid call, and its counterpart on the other run of the pair."""

    call: Call
    twin: Call


def factory(*scenes: str) -> Callable[[Factory], Factory]:
    def register(make: Factory) -> Factory:
        for scene in scenes:
            assert scene not in FACTORIES
            FACTORIES[scene] = make
        return make

    return register


def build_scenes() -> tuple[World, dict[str, Scene]]:
    """The world with everything in it, frozen, and all scenes."""
    world = World()
    made = Stages(world)
    scenes = {}
    for name, make in FACTORIES.items():
        scenes[name] = Scene(make(made, name, 0), make(made, name, 1))
        for n, call in enumerate((scenes[name].call, scenes[name].twin)):
            for account, meta in call.accounts:
                world.name(f"{name}{n + 1}.{account}", meta.pubkey)
    made.name_all()
    world.freeze()
    return world, scenes


# the authority of a run

TEXTS = {"name": "n", "description": "d", "min_client_version": "1", "join_authority": Pubkey.default()}
HEIR = Keypair.from_seed(hashlib.sha256(b"heir").digest()).pubkey()
RESET = {"spec_len": 5, "spec_sha256": hashlib.sha256(b"short").digest()}
ADMINISTRATION: dict[
    str, tuple[str, Callable[[Stages, int], Stage], Callable[[Stages, int], Stage], dict[str, Any]]
] = {
    "configure": ("created", stages.created, stages.created_pool, {"config": config()}),
    "set_round_rate": ("created", stages.created, stages.created_pool, {"rate": 5}),
    "set_paused": ("paused", stages.paused, stages.paused_pool, {"paused": False}),
    "reset_spec": ("paused", stages.paused, stages.paused_pool, RESET),
    "write_spec": ("created", stages.created, stages.created_pool, {"offset": 0, "bytes": SPEC[:100]}),
    "seal_spec": ("written", stages.written, stages.written_pool, {}),
    "set_metadata": ("created", stages.created, stages.created_pool, TEXTS),
    "set_authority": ("created", stages.created, stages.created_pool, {"authority": HEIR}),
    "close_run": ("paused", stages.paused, stages.paused_pool, {}),
}


@factory(*ADMINISTRATION)
def administer(s: Stages, scene: str, n: int) -> Call:
    name, make, _, args = ADMINISTRATION[scene]
    stage = s.build(name, make)[n]
    return make_call(scene, COORDINATOR, stage.run.accounts, **args)


VARIANTS = {
    "".join(w.capitalize() for w in name.split("_")): name for name in ADMINISTRATION if name != "close_run"
}


@factory(*(f"update_pool:{variant}" for variant in VARIANTS))
def update_pool(s: Stages, scene: str, n: int) -> Call:
    variant = scene.split(":")[1]
    name, _, make, args = ADMINISTRATION[VARIANTS[variant]]
    stage = s.build(f"{name} pool", make)[n]
    return make_call(scene, TREASURER, stage.run.accounts, action=(variant, args))


def unborn(s: Stages, n: int, *, paid: bool) -> tuple[Run, dict[str, Any]]:
    """A run that is not created yet; its empty log is there already."""
    run = Run(s.chain, run_id=f"new-{n}", mint=s.mint if paid else None)
    space = account_size(run.capacity)
    params = CreateAccountParams(
        from_pubkey=s.chain.rich.pubkey(),
        to_pubkey=run.log.pubkey(),
        lamports=s.chain.svm.minimum_balance_for_rent_exemption(space),
        space=space,
        owner=COORDINATOR.program,
    )
    s.chain.send(create_account(params), run.log)
    args = {
        "run_id": run.run_id,
        "name": "A run",
        "description": "A text",
        "authority": run.creator.pubkey(),
        "join_authority": run.join_authority,
        "min_client_version": "0.1.0",
        "spec_len": len(SPEC),
        "spec_sha256": hashlib.sha256(SPEC).digest(),
    }
    return run, args


@factory("create_run")
def create_run(s: Stages, scene: str, n: int) -> Call:
    run, args = unborn(s, n, paid=False)
    return make_call(scene, COORDINATOR, run.accounts, args=args)


@factory("create_pool")
def create_pool(s: Stages, scene: str, n: int) -> Call:
    run, args = unborn(s, n, paid=True)
    return make_call(scene, TREASURER, run.accounts, args=args)


def derive_run(call: Call) -> Call:
    """The addresses that belong to another run id."""
    creator = call.key("creator" if call.name == "create_run" else "authority")
    run = seed(b"run", creator, call.value("args.run_id")[4:36], idl=COORDINATOR)
    return call.with_keys(run=run, spec=seed(b"spec", run, idl=COORDINATOR))


def derive_authorization(call: Call) -> Call:
    """The address that belongs to another grantee or scope."""
    parts = (call.key("grantor"), call.value("grantee"), call.value("scope")[4:36])
    return call.with_keys(authorization=seed(b"authorization", *parts, idl=AUTHORIZER))


DERIVED = {"create_run": derive_run, "create_pool": derive_run, "create": derive_authorization}


# members


def member_call(scene: str, idl: Idl, stage: Stage, number: int, /, **args: Any) -> Call:
    return make_call(scene, idl, stage.run.member_accounts(stage.members[number]), **args)


@factory("join", "join:again", "join:authorized")
def join(s: Stages, scene: str, n: int) -> Call:
    """The third member, with which an epoch can start; one that left and was settled; one with an authorization."""
    if scene == "join":
        stage, number = s.build("waiting", stages.waiting)[n], 2
    elif scene == "join:again":
        stage, number = s.build("departed", stages.departed)[n], 0
    else:
        stage, number = s.build("closed", stages.closed)[n], 2
    m = stage.members[number]
    args = {
        "hot_key": m.hot_key.pubkey(),
        "p2p_key": m.p2p_key,
        "tier": m.tier,
        "weight": m.weight,
        "contact": "/ip4/127.0.0.1/tcp/4001",
    }
    return member_call(scene, COORDINATOR, stage, number, args=args)


@factory("update_contact")
def update_contact(s: Stages, scene: str, n: int) -> Call:
    return member_call(
        scene, COORDINATOR, s.build("waiting", stages.waiting)[n], 0, contact="/ip4/1.2.3.4/tcp/1"
    )


@factory("ready", "leave")
def by_slot(s: Stages, scene: str, n: int) -> Call:
    """The last of three becomes ready, and the first round opens; or it leaves."""
    stage = s.build("warmup", stages.warmup)[n]
    return member_call(scene, COORDINATOR, stage, 2, slot=stage.members[2].slot)


@factory("commit", "witness")
def duties(s: Stages, scene: str, n: int) -> Call:
    stage = s.build("training", stages.training)[n]
    member, number = stage.members[2], stage.run.state.open.number
    if scene == "commit":
        return member_call(scene, COORDINATOR, stage, 2, slot=member.slot, round=number, hash=bytes([7] * 32))
    before = next(r for r in stage.run.state.rounds if r.number == number - 1)
    bitmap = sum(1 << slot for slot in before.committed).to_bytes(32, "little")
    return member_call(scene, COORDINATOR, stage, 2, slot=member.slot, round=before.number, bitmap=bitmap)


@factory("attest_checkpoint")
def attest_checkpoint(s: Stages, scene: str, n: int) -> Call:
    stage = s.build("cooldown", stages.cooldown)[n]
    m = stage.members[1]
    args = {"slot": m.slot, "step": stage.run.state.step, "digests": stages.digests(m)}
    return member_call(scene, COORDINATOR, stage, 1, **args)


@factory("record_checkpoint")
def record_checkpoint(s: Stages, scene: str, n: int) -> Call:
    stage = s.build("agreed", stages.agreed)[n]
    number = next(i for i, m in enumerate(stage.members) if m.slot == stage.run.state.uploader)
    slot = stage.members[number].slot
    return member_call(scene, COORDINATOR, stage, number, slot=slot, uri="hub://somebody/weights")


@factory("tick")
def tick(s: Stages, scene: str, n: int) -> Call:
    return make_call(scene, COORDINATOR, s.build("due", stages.due)[n].run.accounts)


@factory("settle", "settle:departed")
def settle(s: Stages, scene: str, n: int) -> Call:
    """Pay moves to a membership; a slot becomes free."""
    if scene == "settle":
        return member_call(scene, COORDINATOR, s.build("finished", stages.finished)[n], 1)
    return member_call(scene, COORDINATOR, s.build("departed", stages.departed)[n], 1)


@factory("evict")
def evict(s: Stages, scene: str, n: int) -> Call:
    return member_call(scene, COORDINATOR, s.build("closed", stages.closed)[n], 0)


@factory("close_membership")
def close_membership(s: Stages, scene: str, n: int) -> Call:
    return member_call(scene, COORDINATOR, s.build("departed", stages.departed)[n], 0)


# money


@factory("claim", "claim:again", "claim:closed")
def claim(s: Stages, scene: str, n: int) -> Call:
    """A member's first claim, without a token account; one of a member that was paid a part; one after the run."""
    name, make = ("ended", stages.ended) if scene == "claim:closed" else ("finished", stages.finished)
    stage = s.build(name, make)[n]
    return member_call(scene, TREASURER, stage, 0 if scene == "claim:again" else 1)


CLOSING = {
    "close_pool": ("paid", stages.paid),
    "close_pool:withdraw": ("owing", stages.owing),
    "close_pool:again": ("ended", stages.ended),
}


@factory(*CLOSING)
def close_pool(s: Stages, scene: str, n: int) -> Call:
    """Everybody was paid, and all closes; members are still owed, and the run closes; the same after the run."""
    return make_call(scene, TREASURER, s.build(*CLOSING[scene])[n].run.accounts)


# authorizations


@factory("create", "set_active", "set_limits", "set_delegates", "close")
def authorization(s: Stages, scene: str, n: int) -> Call:
    """Two grantors, each of which authorized the same wallet within the same scope."""
    grantor, grantee = s.named_key(f"grantor {n}"), s.named_key("grantee")
    scope = b"something new" if scene == "create" else JOIN_SCOPE
    grant = Grant(s.chain, grantor, grantee, scope)
    if scene != "create" and s.chain.data(grant.key) is None:
        grant.create()
    args: dict[str, dict[str, Any]] = {
        "create": {"grantee": grantee.pubkey(), "scope": scope, "max_weight": 5, "min_tier": 0},
        "set_active": {"active": True},
        "set_limits": {"max_weight": 3, "min_tier": 1},
        "set_delegates": {"add": [HEIR, s.stranger.pubkey()], "clear": False},
        "close": {},
    }
    accounts = {
        "payer": s.chain.rich.pubkey(),
        "grantor": grantor.pubkey(),
        "grantee": grantee.pubkey(),
        "recipient": grantor.pubkey(),
        "authorization": grant.key,
        "system_program": SYSTEM,
    }
    return make_call(scene, AUTHORIZER, accounts, **args[scene])
