"""Members with real trainers on the real coordinator program, in one process and without a clock of their own.

The chain is the SVM of `tests.programs`, the peers are a dictionary. A test says what happens when.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from psyche_chain.chain.state import RunState
from psyche_chain.client.catchup import CatchUp
from psyche_chain.client.events import EventLog
from psyche_chain.client.ledger import link
from psyche_chain.client.model import TrainerAdapter, load_trainer
from psyche_chain.client.ports import NotYet
from psyche_chain.client.view import ChainView, RoundStatus
from psyche_chain.client.weights import Weights
from psyche_train.assign import intervals
from psyche_train.spec import TrainSpec
from tests.client.world import FakeMember, FakeNetwork
from tests.programs.chain_harness import Chain, Member, Refused, Run, bitmap
from tests.train.conftest import tables


class Player:
    """One member; making it again is a restart of its process."""

    def __init__(self, crew: Crew, member: Member, name: str) -> None:
        self.crew, self.member, self.name = crew, member, name
        self.folder = crew.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.network = FakeNetwork(crew.peers, member.p2p_key, self.folder / "records.log")
        self.network.own.up = True
        self.start()

    def start(self) -> None:
        """A fresh process: what is not on disk is gone."""
        run = bytes(self.crew.run.log.pubkey())
        tier = self.member.tier
        trainer = load_trainer(
            self.crew.spec, tier=tier, run=run, state_dir=self.folder, device="cpu", threads=1
        )
        self.events = EventLog(self.folder / "events.jsonl")
        self.weights = Weights(trainer, self.folder / "records.log", self.events)
        self.adapter = TrainerAdapter(self.crew.spec, run=run, tier=tier)
        self.catch_up = CatchUp(self.weights, self.network, self.adapter, self.folder, self.events, tier=tier)
        self.why = ""

    async def follow(self) -> bool:
        """Bring the weights to the chain's head; False and `why` if that cannot be."""
        for _ in range(8):
            view = self.crew.view
            records = link(self.weights.history, view)
            try:
                if records == []:
                    await self.catch_up.compare(view.checkpoint)
                    return True
                if records is None:
                    await self.catch_up.catch_up(view)
                else:
                    await self.catch_up.fold(records, view)
            except NotYet as error:
                self.why = str(error)
                return False
        raise AssertionError("it never gets there")

    def lose_blobs(self, *blobs: bytes) -> None:
        """As a disk that failed."""
        for blob in blobs:
            self.network.own.blobs.pop(blob, None)


class Crew:
    """A run of some members."""

    def __init__(self, folder: Path, tiers: Sequence[int] = (0, 0, 1), **rules: int) -> None:
        self.folder = folder
        self.spec = TrainSpec.model_validate(tables(matformer={"max_tier": 1}))
        self.chain = Chain()
        self.run = Run(self.chain, spec=self.spec.to_bytes())
        self.run.start(**{"init_min_clients": len(tiers), "epoch_time": 3, "total_steps": 40} | rules)
        self.peers: dict[bytes, FakeMember] = {}
        self.players = []
        for number, tier in enumerate(tiers):
            member = self.run.member(tier)
            self.run.join(member)
            self.players.append(Player(self, member, f"m{number}"))

    @property
    def view(self) -> ChainView:
        data = self.chain.data(self.run.log.pubkey())
        assert data is not None
        return ChainView.of(RunState.from_account(data, slot=self.chain.slot))

    @property
    def phase(self) -> str:
        return str(self.run.state.phase)

    def ready(self, *players: Player) -> None:
        for player in players or self.players:
            self.run.duty("ready", player.member)

    async def play_round(self) -> None:
        """Everybody folds what is closed, attests the round before, trains and commits."""
        view = self.view
        before = [r for r in view.rounds if r.status is RoundStatus.COMMITTED]
        newest = view.rounds[-1]
        for player in self.players:
            assert await player.follow(), player.why
        for player in self.players:
            slot = player.member.slot
            for round_ in before:
                if slot in round_.witnesses:
                    seen = bitmap(set(round_.committed))
                    self.run.duty("witness", player.member, round=round_.number, bitmap=seen)
        shares = {}
        if newest.trained:
            weights_of = [(s, 1) for s in sorted(newest.assigned)]
            shares = intervals(newest.samples, newest.fills, newest.data_index, weights_of)
        for player in self.players:
            slot, tier = player.member.slot, player.member.tier
            if slot not in shares:
                continue
            result = await player.weights.train(player.adapter.job(newest, slot, tier, shares[slot]))
            assert result is not None
            blob = await player.network.publish(result.blob)
            self.run.duty("commit", player.member, round=newest.number, hash=blob)
        self.chain.pass_time(1)
        if self.phase in ("RoundTrain", "RoundWitness"):
            self.tick()

    async def play_epoch(self) -> None:
        """From Warmup to Cooldown."""
        assert self.phase == "Warmup"
        for player in self.players:
            assert await player.follow(), player.why
        self.ready()
        while self.phase in ("RoundTrain", "RoundWitness"):
            await self.play_round()
        assert self.phase == "Cooldown", self.phase

    async def agree(self) -> None:
        """Everybody attests what it has; the uploader records where the checkpoint is."""
        uris = {}
        for player in self.players:
            assert await player.follow(), player.why
            saved = await player.weights.save()
            uris[player.member.slot], _ = await player.catch_up.sharing.offer(saved.path)
            if self.phase == "Cooldown" and self.run.state.uploader is not None:
                self.run.duty(
                    "attest_checkpoint", player.member, step=saved.step, digests=list(saved.digests)
                )
        uploader = next(p for p in self.players if p.member.slot == self.run.state.uploader)
        self.run.duty("record_checkpoint", uploader.member, uri=uris[uploader.member.slot])
        assert self.view.checkpoint.agreed

    def tick(self) -> None:
        """Move on, if anything is due."""
        with suppress(Refused):
            self.run.tick()

    async def parts(self) -> list[list[bytes]]:
        """Digests of everybody's parts."""
        return [await player.weights.digests() for player in self.players]

    async def assert_equal(self) -> None:
        parts = await self.parts()
        longest = max(parts, key=len)
        assert all(own == longest[: len(own)] for own in parts)
