"""The embedded chain and a real validator answer the same questions alike, but for what is listed.

The validator's answers are kept in `golden.json`, which `python -m tests.localnet.chain.conformance.record`
writes; so the comparison runs everywhere. Where `solana-test-validator` is installed, it is asked again and must
still answer as it did.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from localnet.chain.rpc import METHODS
from localnet.chain.rpc.registry import VERSION
from localnet.chain.subscriptions import KINDS
from tests.e2e.validator import VALIDATOR

from .differences import DIFFERENCES
from .names import NEEDS, NO_PARAMS
from .node import embedded, validator
from .record import GOLDEN, document
from .shapes import differences, masked, shape

golden: dict[str, Any] = json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the embedded chain answers."""
    with embedded(tmp_path_factory.mktemp("embedded")) as rpc:
        made = document(rpc)
    # As if read from a file, like what it is compared with.
    return json.loads(json.dumps(made))


def test_every_question_is_asked_of_both(found: dict[str, Any]) -> None:
    assert set(found["answers"]) == set(golden["answers"]), "record golden.json anew"
    assert found["version"] == golden["version"] == VERSION


def test_answers_differ_only_where_it_is_meant(found: dict[str, Any]) -> None:
    unexpected = []
    for name, expected in golden["answers"].items():
        for line in differences(expected, found["answers"][name]):
            path = line.split(": ", 1)[0]
            if not any(entry.covers(name, path) for entry in DIFFERENCES):
                unexpected.append(f"{name} | {line}")
    assert not unexpected, f"{len(unexpected)} differences:\n" + "\n".join(unexpected[:40])


@pytest.mark.parametrize("entry", DIFFERENCES, ids=lambda entry: entry.questions[0])
def test_no_entry_is_stale(found: dict[str, Any], entry: Any) -> None:
    for pattern in entry.questions:
        single = type(entry)((pattern,), entry.paths, entry.reason)
        covered = [
            name
            for name, expected in golden["answers"].items()
            for line in differences(expected, found["answers"][name])
            if single.covers(name, line.split(": ", 1)[0])
        ]
        assert covered, f"{pattern} covers no difference any more: take it out"


def test_every_method_and_subscription_is_asked_for() -> None:
    asked = {*NO_PARAMS, *NEEDS, "getRecentPerformanceSamples"}
    asked.add("getHighestSnapshotSlot")  # a validator takes one at a moment of its own
    assert set(METHODS) == asked
    text = " ".join(golden["answers"])
    for kind in KINDS:
        assert f"ws notice {kind}" in text


def test_shape_keeps_types_and_meaning_only() -> None:
    answer = {"result": {"value": [{"pubkey": "a", "lamports": 5}, {"pubkey": "b", "lamports": 6}]}, "id": 1}
    assert shape(answer) == {
        "id": "int",
        "result": {"value": {"each": [{"lamports": "int", "pubkey": "string"}]}},
    }
    assert shape({"err": {"InstructionError": [0, {"Custom": 1}]}}) != shape({"err": None})
    assert differences({"a": 1}, {"b": 1}) == ["a: 1 -> missing", "b: missing -> 1"]
    assert masked("Block not available for slot 17") == "Block not available for slot <n>"


@pytest.mark.slow
@pytest.mark.xdist_group("toolchain")
@pytest.mark.timeout(1800)  # slots of real length, and ten minutes were too few on a busy machine
@pytest.mark.skipif(VALIDATOR is None, reason="solana-test-validator is not on PATH")
def test_validator_still_answers_as_recorded(tmp_path: Path) -> None:
    with validator(tmp_path) as rpc:
        made = json.loads(json.dumps(document(rpc)))
    if made["version"] != golden["version"]:
        pytest.skip(f"the validator is {made['version']}, the recorded one {golden['version']}")
    changed = [
        f"{name} | {line}"
        for name, expected in golden["answers"].items()
        for line in differences(expected, made["answers"].get(name))
    ]
    assert not changed, "\n".join(changed[:40])
