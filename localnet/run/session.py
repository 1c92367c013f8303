"""Drive a whole run: chain, programs, run, members, kills, claims, summary."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import trio
from solders.keypair import Keypair

from localnet.run import chain_side
from localnet.run.badnet import BadNetwork, open_bad_network
from localnet.run.chain_side import Cluster
from localnet.run.killer import Kill, schedule
from localnet.run.members import Member
from localnet.run.plan import LaunchError, RunPlan, prepare_folder
from localnet.run.plot import plot_run
from localnet.run.progress import MemberProgress
from localnet.run.summary import Summary, Weights, build, read_weights
from localnet.run.view import ChainProgress, View
from psyche_chain.admin.session import Session, open_session
from psyche_chain.chain import accounts
from psyche_chain.chain.accounts import Run
from psyche_chain.chain.errors import ChainError
from psyche_chain.chain.state import Phase, RunState
from psyche_chain.cli import exit_codes
from psyche_chain.wallet import new_wallet
from psyche_train.matformer.loading import CheckpointError
from psyche_train.records import GENESIS, RecordLog, RoundRecord

POLL_S = 0.4
END_GRACE_S = 120.0
"""How long members may take to write their last checkpoint after the run has ended."""


async def run_plan(plan: RunPlan) -> Summary:
    """Do the whole run and return its summary, which is also in ``<out>/summary.json``.

    Raises:
        ConfigError: the plan cannot work. LaunchError: a part died, or time ran out. ChainError: the chain failed.
    """
    plan.check()
    prepare_folder(plan.out)
    members: list[Member] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            work = trio.CancelScope()
            nursery.start_soon(_heed, signals, work, members)
            with work:
                summary = await _do(plan, members)
            nursery.cancel_scope.cancel()
    if work.cancelled_caught:
        raise LaunchError(
            "stopped before the run was over; chain and members are ended",
            f"what was done so far is in {plan.out}",
            exit_codes.INTERRUPTED,
        )
    return summary


async def _heed(signals: AsyncIterator[int], work: trio.CancelScope, members: list[Member]) -> None:
    """End in good order at the first signal, kill the members at the second."""
    async for _ in signals:
        if work.cancel_called:
            for member in members:
                member.kill()
        work.cancel()


async def _do(plan: RunPlan, processes: list[Member]) -> Summary:
    """The run itself; `processes` is filled with the members as they are started."""
    started = time.monotonic()
    chain = ChainProgress(plan.config.run_id, plan.config.config.total_steps, network=str(plan.bad))
    members: list[MemberProgress] = []
    with View(chain, members, headless=plan.headless) as view:
        folders = [plan.out / f"member-{i}" for i in range(len(plan.tiers))]
        async with (
            _open_network(plan, folders, view) as network,
            chain_side.open_cluster(plan, network.chain_host if network else "127.0.0.1") as cluster,
        ):
            launch = Launch(plan, cluster, chain, members, view, processes, network)
            try:
                with trio.fail_after(plan.timeout_s):
                    await launch.prepare()
                    await launch.watch()
            except trio.TooSlowError:
                raise LaunchError(
                    f"the run was not over after {plan.timeout_s:.0f} s, it is in {chain.phase} at step {chain.step}",
                    f"look into {plan.out}/member-*/client.log, or allow more with --timeout",
                ) from None
            finally:
                with trio.CancelScope(shield=True):
                    await launch.stop_members()
            return await launch.finish(time.monotonic() - started)


def _open_network(
    plan: RunPlan, folders: list[Path], view: View
) -> AbstractAsyncContextManager[BadNetwork | None]:
    if not (plan.bad or plan.packets):
        return nullcontext()

    def instead(reason: str) -> None:
        view.say(f"--packets: {reason}; proxies are used instead, which model the loss of packets")

    return open_bad_network(plan.bad, folders, plan.seed, packets=plan.packets, instead=instead)


@dataclass
class Launch:
    """One run in progress."""

    plan: RunPlan
    cluster: Cluster
    chain: ChainProgress
    progress: list[MemberProgress]
    view: View
    members: list[Member]
    network: BadNetwork | None
    keys: list[Keypair] = field(default_factory=list)
    kills: int = 0
    run: Run = field(init=False)
    _creator: Keypair = field(init=False)

    async def prepare(self) -> None:
        """Wallets, money, programs, the run, the members' processes."""
        plan, say = self.plan, self.view.say
        creator = new_wallet(plan.out / "wallets" / "creator.json")
        paths = [plan.out / "wallets" / f"member-{i}.json" for i in range(len(plan.tiers))]
        self.keys = [new_wallet(path) for path in paths]
        say(f"chain: {self.cluster.url}" + (" (embedded)" if self.cluster.embedded else ""))
        await chain_side.fund_wallets(
            self.cluster.url,
            [(creator, chain_side.CREATOR_SOL), *((key, chain_side.MEMBER_SOL) for key in self.keys)],
        )
        await chain_side.deploy(self.cluster.url, creator, say)
        if self.network is not None:
            say(f"network: {plan.bad}; seed {plan.seed}")
        self._creator = creator
        self.run = await chain_side.create_run(self.cluster.url, creator, plan, say)
        say(f"run {self.run.run_id}: {self.run.key}")
        for index, (tier, key, path) in enumerate(zip(plan.tiers, self.keys, paths, strict=True)):
            progress = MemberProgress(index, tier, str(key.pubkey()))
            self.progress.append(progress)
            member = Member(
                progress=progress,
                keypair=path,
                state_dir=plan.out / f"member-{index}",
                run=str(self.run.key),
                rpc=self.cluster.url,
                listen=self.network.listen(index) if self.network else plan.config.network.listen,
                announce=self.network.announced(index) if self.network else None,
                prefix=self.network.prefix(index) if self.network else (),
                threads=plan.threads,
                device=plan.device,
            )
            member.start()
            self.members.append(member)

    async def watch(self) -> None:
        """Follow chain and members until the run has ended and every member is out."""
        async with open_session([self.cluster.url], self._creator) as session:
            kills = self._kills()
            due = next(kills, None)
            down: dict[int, float] = {}
            first_round: float | None = None
            ended_at: float | None = None
            pausing = False
            while True:
                state = await self._look(session)
                now = time.monotonic()
                if first_round is None and state is not None and state.current is not None:
                    first_round = now
                over = state is not None and self._over(state)
                for member in self.members:
                    self._check(member, down, over)
                if over:
                    due, ended_at = None, ended_at or now
                    if await self._all_out(state, down):
                        return
                    if now - ended_at > END_GRACE_S:
                        raise LaunchError(
                            f"the run is over, but members still run after {END_GRACE_S:.0f} s",
                            f"look into {self.plan.out}/member-*/client.log",
                        )
                if due is not None and first_round is not None and now - first_round >= due.at_s:
                    self._kill(due, first_round, down)
                    due = next(kills, None)
                self._restart(down, now)
                if self.network is not None:
                    self.network.follow(None if first_round is None else now - first_round, self.view.say)
                limit = self.plan.exit_after_steps
                if limit is not None and not pausing and state is not None and state.step >= limit:
                    await chain_side.pause(self.cluster.url, self._creator, self.run)
                    pausing = True
                self.view.update()
                await trio.sleep(POLL_S)

    async def _look(self, session: Session) -> RunState | None:
        """The chain's state for the screen; None when it did not answer this time."""
        try:
            state = await accounts.fetch_state(session.rpc, self.run)
        except ChainError as error:
            self.view.say(f"chain: {error.message}")
            return None
        self.chain.phase, self.chain.epoch, self.chain.step = state.phase.label, state.epoch, state.step
        self.chain.round = state.current.number if state.current else 0
        return state

    def _over(self, state: RunState) -> bool:
        paused = state.phase is Phase.PAUSED and self.plan.exit_after_steps is not None and state.step > 0
        return state.phase is Phase.FINISHED or paused

    def _check(self, member: Member, down: dict[int, float], over: bool) -> None:
        """Take a member's events in; a process that ended on its own before the run did is an error."""
        code = member.poll()
        if code is None or member.progress.index in down:
            return
        if not over or code != 0:
            raise LaunchError(
                f"{member.name} ended with exit status {code} in the middle of the run:\n{member.log_tail()}",
                f"its whole output is in {member.state_dir / 'client.log'}",
            )
        member.progress.state = "finished"

    async def _all_out(self, state: RunState | None, down: dict[int, float]) -> bool:
        if down:
            return False
        if state is not None and state.phase is Phase.PAUSED:
            await self.stop_members()
        return all(m.process is not None and m.process.poll() is not None for m in self.members)

    def _kills(self) -> Iterator[Kill]:
        plan = self.plan
        if not plan.kill_random:
            return iter(())
        kills = schedule(
            seed=plan.seed, num_members=len(plan.tiers), num_killed=plan.kill_random, every_s=plan.every_s
        )
        return (
            kills
            if plan.max_kills is None
            else (kill for kill, _ in zip(kills, range(plan.max_kills), strict=False))
        )

    def _kill(self, kill: Kill, origin: float, down: dict[int, float]) -> None:
        for index in kill.members:
            if index in down:
                continue
            self.view.say(f"kill -9 member {index} in {self.chain.phase} of round {self.chain.round}")
            self.members[index].kill()
            self.kills += 1
            down[index] = origin + kill.restart_at_s

    def _restart(self, down: dict[int, float], now: float) -> None:
        for index in [i for i, at in down.items() if now >= at]:
            del down[index]
            self.members[index].progress.restarts += 1
            self.members[index].start()
            self.view.say(f"member {index} started again")

    async def stop_members(self) -> None:
        """Ask all to leave at once; those that do not are killed."""
        async with trio.open_nursery() as nursery:
            for member in self.members:
                nursery.start_soon(member.stop)
        for member in self.members:
            member.poll()

    async def finish(self, wall_s: float) -> Summary:
        """Claims, checks, files."""
        claimed = await chain_side.claim_all(self.cluster.url, self.run, self.keys)
        async with open_session([self.cluster.url], self._creator) as session:
            state, pay = await chain_side.fetch_end(session, self.run)
        weights: dict[int, Weights] = {}
        troubles: list[str] = []
        for member in self.progress:
            if member.checkpoint is None:
                continue
            try:
                weights[member.index] = await trio.to_thread.run_sync(
                    read_weights, Path(member.checkpoint), self.plan.config.spec
                )
            except CheckpointError as error:
                troubles.append(f"member {member.index}: {error}")
        summary = build(
            members=self.progress,
            weights=weights,
            state=state,
            pay=pay,
            claimed=claimed,
            records=self._records(),
            run_id=self.plan.config.run_id,
            wall_s=wall_s,
            kills=self.kills,
            extra_problems=troubles,
        )
        text = json.dumps(summary.as_json(), indent=2) + "\n"
        (self.plan.out / "summary.json").write_text(text)
        await trio.to_thread.run_sync(
            plot_run, self.plan.config.run_id, self.progress, self.plan.out / "loss.png"
        )
        return summary

    def _records(self) -> list[RoundRecord]:
        """The whole log, put together from all members': one that came back by a checkpoint has a gap in its own."""
        logs = [
            RecordLog(p, read_only=True) for m in self.members if (p := m.state_dir / "records.log").exists()
        ]
        records: list[RoundRecord] = []
        history = GENESIS
        while more := max((log.after(history) for log in logs), key=len, default=[]):
            for record in more:
                history = record.next_history(history)
            records += more
        return records
