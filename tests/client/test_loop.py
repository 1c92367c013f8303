"""The member's loop against a run in memory: whole runs, deaths, returns, and what a stale node shows."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from psyche_chain.chain.errors import RpcUnavailable
from psyche_chain.chain.state import Phase, SlotStatus
from psyche_chain.cli.exit_codes import TRAINER
from psyche_chain.client.acts import Acts
from psyche_chain.client.catchup import CatchUp
from psyche_chain.client.events import EventLog
from psyche_chain.client.loop import Client
from psyche_chain.client.weights import Weights
from psyche_chain.errors import FundsError
from psyche_train.jobs import TrainerLost
from tests.client.views import wallet
from tests.client.world import (
    FAST,
    FakeAdapter,
    FakeEvals,
    FakeMember,
    FakeModel,
    FakeNetwork,
    FakePort,
    FakeRun,
)


class Member:
    """One member with a folder, that can be killed and started again."""

    def __init__(self, run: FakeRun, peers: dict[bytes, FakeMember], number: int, folder: Path) -> None:
        self.run = run
        self.peers = peers
        self.number = number
        self.key = bytes([number + 1]) * 32
        self.folder = folder / f"member{number}"
        self.model: FakeModel | None = None
        self.exit: int | None = None
        self.scope = trio.CancelScope()
        self.client: Client | None = None
        self.port: FakePort | None = None
        self.evals: FakeEvals | None = None

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]

    async def live(self) -> None:
        """Be a member; every start is that of a fresh process."""
        tier = 0 if self.number == 0 else 1
        self.scope = trio.CancelScope()
        with self.scope, EventLog(self.folder / "events.jsonl") as events:
            network = FakeNetwork(self.peers, self.key, self.folder / "records.log")
            try:
                self.port = FakePort(self.run, wallet(self.number), self.key, tier)
                self.model = FakeModel(self.folder)
                weights = Weights(self.model, self.folder / "records.log", events, self.evals)
                adapter = FakeAdapter()
                catch_up = CatchUp(weights, network, adapter, self.folder, events, tier=tier)
                acts = Acts(
                    wallet(self.number), self.port, network, weights, adapter, catch_up, events, tier=tier
                )
                self.client = Client(
                    wallet(self.number),
                    self.port,
                    acts,
                    events,
                    poll_s=0.02,
                    linger_s=20,
                    rng=random.Random(self.number),
                )
                self.exit = await self.client.run()
            finally:
                network.own.up = False

    def kill(self) -> None:
        """End it as `kill -9` would: nothing is cleaned up."""
        self.scope.cancel()


class World:
    """Three members and a run."""

    def __init__(self, folder: Path, nursery: trio.Nursery, **options: Any) -> None:
        self.run = FakeRun(**options)
        peers: dict[bytes, FakeMember] = {}
        self.members = [Member(self.run, peers, i, folder) for i in range(3)]
        self.nursery = nursery
        for one in self.members:
            one.folder.mkdir()

    def start(self, *numbers: int) -> None:
        for number in numbers or range(3):
            self.nursery.start_soon(self.members[number].live)

    async def until(self, done: Any, limit_s: float = 60.0) -> None:
        with trio.fail_after(limit_s):
            while not done():
                await trio.sleep(0.01)

    def weights(self) -> set[bytes]:
        return {m.model.weights for m in self.members if m.model is not None}

    def errors(self) -> list[str]:
        return [e for number in range(len(self.members)) for e in self.errors_of(number)]

    def errors_of(self, number: int) -> list[str]:
        return [e["message"] for e in self.members[number].events if e["event"] == "error"]


async def test_three_members_finish_a_run_with_equal_weights(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        world.start()
        await world.until(lambda: all(m.exit == 0 for m in world.members))
    assert len(world.weights()) == 1
    assert world.run.view.step == FAST.total_steps
    assert world.run.view.checkpoint.uri.startswith("peers:")
    assert world.errors() == []
    sent = Counter(world.run.sent)
    for slot in range(3):
        assert sent["commit", slot] == FAST.total_steps
        assert sent["ready", slot] == 2
        assert 1 <= sent["attest", slot] <= 2, "two of three are enough, the third may come too late"
    kinds = Counter(e["event"] for e in world.members[0].events)
    assert kinds["train"] == kinds["commit"] == FAST.total_steps
    assert kinds["fold"] == FAST.total_steps + 2, "drain rounds are folded too"
    assert kinds["val"] == 3


@pytest.mark.parametrize("call", ["train", "fold"])
async def test_member_whose_trainer_is_lost_leaves_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def lost(*_: Any) -> None:
        raise TrainerLost("rank 1 has ended: start the member again")

    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        world.start()
        await world.until(lambda: world.run.view.step >= 2)
        monkeypatch.setattr(world.members[1].model, call, lost)
        await world.until(lambda: world.members[1].exit == TRAINER, limit_s=20)
        (error,) = world.errors_of(1)
        assert "rank 1 has ended: start the member again" in error
        assert [what for what, _ in world.run.sent].count("leave") == 1
        world.members[1].exit = None
        world.start(1)  # a fresh process
        await world.until(lambda: all(m.exit == 0 for m in world.members))
    assert len(world.weights()) == 1


@pytest.mark.parametrize("victim", [0, 1])
async def test_member_that_dies_in_mid_round_comes_back_with_equal_weights(
    tmp_path: Path, victim: int
) -> None:
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        world.start()
        run = world.run
        await world.until(lambda: run.view.step >= 3 and run.view.phase is Phase.ROUND_TRAIN)
        world.members[victim].kill()
        at = run.view.step
        await world.until(lambda: run.view.step > at)
        world.start(victim)
        await world.until(lambda: all(m.exit == 0 for m in world.members))
    assert len(world.weights()) == 1
    assert Counter(world.run.sent)["join", -1] == 3, "a member that comes back need not join again"


@pytest.mark.parametrize("seed", range(4))
async def test_random_deaths_end_with_equal_weights(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery, steps_per_epoch=4)
        world.start()
        run = world.run
        for _ in range(3):
            await trio.sleep(rng.uniform(0.1, 1.5))
            victim = rng.choice(world.members)
            if run.view.phase is Phase.FINISHED or victim.exit is not None:
                break
            victim.kill()
            await trio.sleep(rng.uniform(0.0, 1.0))
            world.start(victim.number)
        await world.until(lambda: all(m.exit == 0 for m in world.members))
    assert len(world.weights()) == 1
    assert run.view.step == FAST.total_steps


@pytest.mark.parametrize("victim", [0, 2], ids=["the-only-tier-0", "a-tier-1"])
async def test_member_without_a_disk_comes_back_through_the_checkpoint(tmp_path: Path, victim: int) -> None:
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery, steps_per_epoch=4)
        world.start()
        run, lost = world.run, world.members[victim]
        own = wallet(victim)
        await world.until(lambda: run.view.checkpoint.step == 8 and run.view.phase is Phase.ROUND_TRAIN)
        lost.kill()
        await world.until(lambda: own not in {s.wallet for s in run.view.active() if s.ready})
        for path in sorted(lost.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        lost.peers[lost.key].blobs.clear()
        world.start(victim)
        await world.until(lambda: all(m.exit == 0 for m in world.members))
    assert len(world.weights()) == 1
    assert any(e["event"] == "restore" for e in lost.events)


async def test_stopped_member_leaves_and_the_others_go_on(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        world.start()
        await world.until(lambda: world.run.view.step >= 3)
        leaver = world.members[1]
        assert leaver.client is not None
        leaver.client.stop()
        await world.until(lambda: leaver.exit == 0)
        assert world.run.slots[world.run.view.slot_of(wallet(1)).index].status is SlotStatus.DEPARTED  # type: ignore[union-attr]
        world.start(1)
        leaver.exit = None
        await world.until(lambda: all(m.exit == 0 for m in world.members))
    assert len(world.weights()) == 1


async def test_stopping_while_no_endpoint_answers_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable() -> Any:
        raise RpcUnavailable("no RPC endpoint answered")

    monkeypatch.setattr("psyche_chain.client.loop.LEAVE_DEADLINE_S", 0.3)
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        leaver = world.members[0]
        world.start(0)
        await world.until(lambda: leaver.port is not None and leaver.client is not None)
        assert leaver.port is not None
        assert leaver.client is not None
        leaver.port.snapshot = unreachable  # type: ignore[method-assign]
        await world.until(lambda: any("cannot be read" in error for error in world.errors_of(0)))
        leaver.client.stop()
        await world.until(lambda: leaver.exit == 0, limit_s=5)


async def test_stale_snapshots_cause_no_second_transaction(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        rng = random.Random(7)
        world.start()
        await world.until(lambda: all(m.port is not None for m in world.members))
        for one in world.members:
            assert one.port is not None
            one.port.lag = lambda: rng.random() < 0.7
        await world.until(lambda: all(m.exit == 0 for m in world.members))
    assert len(world.weights()) == 1
    sent = Counter(world.run.sent)
    assert all(sent["commit", slot] == FAST.total_steps for slot in range(3))


async def test_member_without_sol_says_so_serves_on_and_goes_on_when_it_is_funded(tmp_path: Path) -> None:
    empty = True

    async def broke(self: FakePort, name: str, slot: int) -> None:
        if self.wallet == wallet(1) and empty:
            raise FundsError(f"{name}: wallet has no SOL for the fee", "send SOL to it")
        await land(self, name, slot)

    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        world.start()
        run, land = world.run, FakePort._land
        await world.until(lambda: run.view.step >= 3 and run.view.phase is Phase.ROUND_TRAIN)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FakePort, "_land", broke)
            await world.until(lambda: any("has no SOL" in e for e in world.errors_of(1)))
            at = run.view.step
            await world.until(lambda: run.view.step > at + 1)
            assert world.members[1].exit is None
            assert world.members[1].peers[world.members[1].key].up, "it serves its blobs"
            empty = False
            await world.until(lambda: all(m.exit == 0 for m in world.members))
    assert len(world.weights()) == 1
    last_round = run.view.rounds[-1].number
    commits = [e["round"] for e in world.members[1].events if e["event"] == "commit"]
    assert max(commits) > last_round - 4, "it takes part again"


@pytest.mark.parametrize("wrong_by_s", [-600, 600])
async def test_wrong_clock_of_this_machine_changes_nothing(
    tmp_path: Path, wrong_by_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the chain's clock decides: members' own clocks are minutes away from it."""
    monkeypatch.setattr(FakeRun, "now", property(lambda self: int(time.time()) + wrong_by_s))
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        world.start()
        await world.until(lambda: all(m.exit == 0 for m in world.members))
    assert len(world.weights()) == 1
    assert world.errors() == []
    assert Counter(world.run.sent)["commit", 1] == FAST.total_steps


async def test_stopped_while_joining_it_leaves_what_it_joined(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        leaver = world.members[0]
        began, land = trio.Event(), FakePort._land

        async def slow(self: FakePort, name: str, slot: int) -> None:
            if name == "join":
                began.set()
                await trio.sleep(0.5)
            await land(self, name, slot)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FakePort, "_land", slow)
            world.start(0)
            with trio.fail_after(20):
                await began.wait()
            assert leaver.client is not None
            leaver.client.stop()
            await world.until(lambda: leaver.exit == 0)
    assert [name for name, _ in world.run.sent] == ["join", "leave"]


async def test_member_whose_place_another_process_took_says_so_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psyche_chain.client.loop.REFRESH_MEMBERS_S", 0.1)
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        world.start(0)
        member = world.members[0]
        await world.until(lambda: bool(world.run.contacts))

        async def kept(self: FakePort, contact: str) -> int:
            return self.run.slot

        monkeypatch.setattr(FakePort, "update_contact", kept)
        world.run.contacts[0] = "/ip4/192.0.2.1/tcp/4001"
        await world.until(lambda: member.exit is not None)
    assert member.exit == 1
    assert "at /ip4/192.0.2.1/tcp/4001; this one ends" in world.errors_of(0)[-1]
    assert world.run.slots[0].status is SlotStatus.WAITING, "it does not make the other one leave"
