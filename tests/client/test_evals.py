"""Evaluations between the duties: a duty waits for one slice at most, and none is lost by them."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from psyche_chain.chain.state import Phase
from psyche_chain.client.acts import Acts
from psyche_chain.client.duties import decide
from psyche_chain.client.duty import Evaluate
from tests.client.test_loop import World
from tests.client.views import a_view, me
from tests.client.world import FAST, FakeEvals, FakeModel

OF_DUTIES = ("train", "fold", "save", "validation_loss", "digests")


class JournalModel(FakeModel):
    """A model that writes down what duties do with it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.lines: list[str] = []
        super().__init__(*args, **options)

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in OF_DUTIES:
            return found

        def noted(*args: Any) -> Any:
            self.lines.append(name)
            return found(*args)

        return noted


async def test_a_duty_waits_for_one_slice_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    asked = Acts.end_evaluation
    monkeypatch.setattr("tests.client.test_loop.FakeModel", JournalModel)
    monkeypatch.setattr(Acts, "end_evaluation", lambda self: (lines.append("asked"), asked(self))[1])
    monkeypatch.setattr(JournalModel, "lines", lines, raising=False)
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        evals = world.members[1].evals = FakeEvals()
        begin = evals.slice

        def slice_(step: int) -> Any:
            lines.append("slice")
            return begin(step)

        evals.slice = slice_  # type: ignore[method-assign]
        world.start(1)
        await world.until(lambda: world.members[1].model is not None)
        model = world.members[1].model
        assert isinstance(model, JournalModel)
        model.lines = lines
        world.start(0, 2)
        await world.until(lambda: all(m.exit == 0 for m in world.members))
    assert lines.count("slice") > FAST.total_steps
    assert lines.count("train") >= FAST.total_steps
    waits = []
    for at, line in enumerate(lines):
        if line == "asked":
            after = lines[at + 1 :]
            done = next((i for i, what in enumerate(after) if what in OF_DUTIES), 0)
            waits.append(after[:done].count("slice"))
    assert len(waits) >= FAST.total_steps // 2
    assert max(waits) <= 1
    assert len(world.weights()) == 1
    assert world.errors() == []
    sent = Counter(world.run.sent)
    assert all(sent["commit", slot] == FAST.total_steps for slot in range(3)), "no round was missed"


async def test_the_duty_is_the_next_thing_that_the_model_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slice is held until a snapshot showed a duty: the duty comes before any other slice."""
    monkeypatch.setattr("tests.client.test_loop.FakeModel", JournalModel)
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        member = world.members[0]
        evals = member.evals = FakeEvals()
        began, go_on = threading.Event(), threading.Semaphore(0)
        is_over = False

        def slice_(step: int) -> None:
            assert member.model is not None
            member.model.lines.append("slice")  # type: ignore[attr-defined]
            began.set()
            go_on.acquire()

        evals.slice = slice_  # type: ignore[method-assign, assignment]
        evals.is_due = lambda step: not is_over  # type: ignore[method-assign]
        world.start()
        try:
            for _ in range(5):
                await world.until(began.is_set)
                client, model = member.client, member.model
                assert client is not None
                assert isinstance(model, JournalModel)
                await world.until(lambda acts=client._acts: acts._evaluation_ends)
                before = len(model.lines)
                began.clear()
                go_on.release()
                await world.until(began.is_set)
                assert model.lines[before] in OF_DUTIES
        finally:
            is_over = True
            go_on.release(1000)
        await world.until(lambda: all(m.exit == 0 for m in world.members))
    assert len(world.weights()) == 1


async def test_results_and_the_end_of_an_evaluation_are_events(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        member = world.members[2]
        evals = member.evals = FakeEvals()
        evals.results = {
            0: {"task": "validation", "tier": 1, "loss": 2.5, "first_step": 0, "step": 0},
            3: {"error": "the logits are not finite"},
        }
        world.start()
        await world.until(lambda: all(m.exit == 0 for m in world.members))
    (found,) = [e for e in member.events if e["event"] == "eval"]
    assert (found["task"], found["loss"]) == ("validation", 2.5)
    assert world.errors() == ["nothing is evaluated any more: the logits are not finite"]
    assert len(evals.began) == 4


async def test_a_member_that_evaluates_leaves_in_good_order(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        member = world.members[1]
        member.evals = FakeEvals()
        world.start()
        await world.until(lambda: world.run.view.step >= 3)
        assert member.client is not None
        member.client.stop()
        await world.until(lambda: member.exit == 0)
        member.exit = None
        world.start(1)
        await world.until(lambda: all(m.exit == 0 for m in world.members))
    assert len(world.weights()) == 1


def test_an_evaluation_is_decided_only_where_the_model_has_nothing_else_to_do() -> None:
    view = a_view(Phase.WAITING_FOR_MEMBERS)
    mine = me(0, view, evaluates=True)
    assert Evaluate() in decide(view, mine, 1001.0)
    assert Evaluate() not in decide(view, replace(mine, evaluates=False), 1001.0)
    assert Evaluate() not in decide(view, replace(mine, busy=frozenset({"weights"})), 1001.0)
    assert Evaluate() not in decide(view, replace(mine, validated=frozenset()), 1001.0)
    assert Evaluate() not in decide(view, replace(mine, stopping=True), 1001.0)
    done = a_view(Phase.FINISHED)
    assert Evaluate() not in decide(done, me(0, done, evaluates=True), 1001.0)
