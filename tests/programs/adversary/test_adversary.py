"""Wrong, missing, doubled and forged accounts and arguments for every instruction: only named errors, no change."""

from collections import Counter

import pytest
from solders.account import Account

from tests.programs.adversary.argument_mutations import LENGTHS
from tests.programs.adversary.attack import FAMILIES, attack
from tests.programs.adversary.scenes import build_scenes
from tests.programs.chain_harness import AUTHORIZER, COORDINATOR, TREASURER

IDLS = (COORDINATOR, AUTHORIZER, TREASURER)


@pytest.fixture(scope="module")
def made():
    return build_scenes()


@pytest.fixture(scope="module")
def report(made):
    return attack(*made, per_class=1)


def test_every_instruction_has_a_scene(made):
    """Another instruction in an IDL needs a factory in `scenes.py`: a state in which it succeeds."""
    _, scenes = made
    described = {name for idl in IDLS for name in idl.instructions}
    assert described == {scene.call.name for scene in scenes.values()}


def test_every_variant_of_an_argument_has_a_scene(made):
    _, scenes = made
    reached = {leaf.path for scene in scenes.values() for leaf in scene.call.leaves}
    variants = {
        f"{arg['name']}.{variant['name']}"
        for idl in IDLS
        for instruction in idl.instructions.values()
        for arg in instruction["args"]
        if isinstance(arg["type"], dict) and "defined" in arg["type"]
        for variant in idl.types[arg["type"]["defined"]["name"]].get("variants", [])
        if "fields" in variant
    }
    assert {v for v in variants if not any(path.startswith(v + ".") for path in reached)} == set()
    assert {s.split(":")[1] for s in scenes if s.startswith("update_pool:")} == {
        v["name"] for v in TREASURER.types["PoolAction"]["variants"]
    }


def test_world_holds_every_type_of_account(made):
    """Two of each: what one run calls its own is a stranger's to the other."""
    world, _ = made
    held = Counter(bytes(a.data[:8]) for a in world.state.values() if a is not None)
    for idl in IDLS:
        for name, discriminator in idl.accounts.items():
            assert held[discriminator] >= 2, name


def test_unchanged_calls_succeed_and_change_something(made):
    world, scenes = made
    for scene in scenes.values():
        for call in (scene.call, scene.twin):
            outcome, changes = world.attempt(call.instruction())
            assert outcome.accepted, f"{call.scene}: {outcome.error}\n" + "\n".join(outcome.logs)
            assert changes, f"{call.scene} changed nothing"
            assert not outcome.faults + outcome.damage
    world.check_unchanged()


def test_nothing_gets_through(report):
    """Accepted is what `equivalences.py` and `unreachable.py` give a reason for, and no more."""
    assert report.unexplained == []


def test_refusals_are_named_and_change_nothing(report):
    assert report.faults == []


def test_reasons_are_all_used(report):
    assert report.stale() == []


def test_every_call_is_attacked_in_every_way(made, report):
    _, scenes = made
    assert set(report.tried) == {(scene, family) for scene in scenes for family in FAMILIES}
    assert report.num_tried > 15_000


@pytest.mark.parametrize(
    ("field", "limit"),
    [
        ("run_id", 32),
        ("name", 64),
        ("description", 280),
        ("min_client_version", 32),
        ("contact", 128),
        ("scope", 32),
        ("uri", 128),
    ],
)
def test_texts_end_at_their_limits(report, field, limit):
    ends = {f"{length} bytes" for length in LENGTHS if length <= limit}
    beyond = {f"{length} bytes" for length in LENGTHS if length > limit}
    accepted = {
        detail
        for _, target, kind, detail in report.accepted
        if target.split(".")[-1] == field and kind.startswith("other value")
    }
    assert f"{limit} bytes" in accepted & ends
    assert not accepted & beyond


def test_damage_is_seen(made):
    """The adversary notices what it looks for: money that is gone, an account that changed behind its back."""
    world, scenes = made
    call = scenes["set_round_rate"].call
    stranger = next(iter(world.signers))
    world.place(stranger, Account(1, b"", world.state[call.key("authority")].owner, False, 0))
    with pytest.raises(AssertionError, match="changed by a transaction that does not name it"):
        world.check_unchanged()
    world.place(stranger, world.state[stranger])
    outcome, _ = world.attempt(call.instruction(data=b""))
    assert (outcome.error, outcome.own, outcome.damage) == ("InstructionFallbackNotFound", False, [])
    world.check_unchanged()


@pytest.mark.slow
def test_every_account_of_the_world_in_every_position(made):
    report = attack(*made, per_class=0)
    assert (report.unexplained, report.faults, report.stale()) == ([], [], [])
