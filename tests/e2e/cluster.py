"""An embedded chain with the real programs, a run on it, and members as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from solders.keypair import Keypair
from tests.chain.deploying import deploy_programs

from localnet.chain.process import ChainProcess
from psyche_chain.admin.create import create_run
from psyche_chain.admin.session import Session
from psyche_chain.chain import accounts, queries
from psyche_chain.chain.accounts import Run
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.sender import Sender, confirm
from psyche_chain.chain.state import Phase, RunState
from psyche_chain.config import load_config

ROOT = Path(__file__).resolve().parents[2]
SOL = 1_000_000_000

TINY = """
run_id = "tiny"

[config]
warmup_time = 60
cooldown_time = 30
epoch_time = 3600
max_round_train_time = 5
round_witness_time = 3
init_min_clients = 3
min_clients = 1
global_batch_size_start = 6
global_batch_size_end = 6
total_steps = {steps}

[model.LLM]
architecture = "HfLlama"
data_type = "Pretraining"
max_seq_len = 32

[model.LLM.checkpoint.Init]
seed = 1
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 2
vocab_size = 256

[model.LLM.data_location.Dummy]
num_tokens = 200000

[model.LLM.lr_schedule.Constant]
base_lr = 2.0e-3
warmup_steps = 0
warmup_init_lr = 0.0

[model.LLM.optimizer.Distro]
compression_chunk = 16
compression_topk = 4

[model.LLM.matformer]
max_tier = 1

[join]
authority = "open"
capacity = 16
"""


@dataclass
class MemberProcess:
    """One member: its folder, its wallet, and its process while it runs."""

    number: int
    tier: int
    folder: Path
    keypair: Path
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`."""
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(10)

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        path = self.folder / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:  # torn by a kill
                continue
            if kind in (None, event["event"]):
                found.append(event)
        return found

    def tail(self) -> str:
        path = self.folder / "output.txt"
        return path.read_text()[-2000:] if path.exists() else ""


@dataclass
class Cluster:
    """The chain, the run and the members."""

    session: Session
    run: Run
    members: list[MemberProcess] = field(default_factory=list)

    async def state(self) -> RunState:
        return await accounts.fetch_state(self.session.rpc, self.run)

    async def until(self, what: str, done: Callable[[RunState], bool], limit_s: float = 120.0) -> RunState:
        """Poll until `done`; a member that ends with an error ends the wait."""
        with trio.move_on_after(limit_s):
            while True:
                state = await self.state()
                if done(state):
                    return state
                for member in self.members:
                    assert member.exit_code in (None, 0, -9), f"member {member.number}: {member.tail()}"
                await trio.sleep(0.1)
        tails = "\n".join(
            f"--- {m.number} (exit {m.exit_code}): {m.tail()}\n{m.events()[-5:]}" for m in self.members
        )
        raise AssertionError(f"{what}: not within {limit_s} s, phase {state.phase.label}\n{tails}")

    async def until_all_ended(self, limit_s: float = 90.0) -> None:
        await self.until(
            "all members end", lambda _: all(m.exit_code == 0 for m in self.members), limit_s=limit_s
        )

    def final_hashes(self) -> list[str]:
        """weights_sha256 of every member's last checkpoint."""
        return [m.events("checkpoint")[-1]["weights_sha256"] for m in self.members]


@asynccontextmanager
async def cluster(
    folder: Path, *, tiers: tuple[int, ...] = (0, 1, 1), steps: int = 8, config: str = TINY
) -> AsyncIterator[Cluster]:
    """Chain, programs and run, and wallets of members that are not started yet."""
    with ChainProcess(folder / "chain") as chain:
        async with RpcPool([chain.url]) as rpc:
            creator = Keypair()
            await _fund(rpc, creator, 100)
            await deploy_programs(rpc, creator)
            session = Session(rpc, Sender(rpc, creator))
            path = folder / "run.toml"
            path.write_text(config.format(steps=steps))
            lines: list[str] = []
            run = await create_run(session, load_config(path), paused=False, report=lines.append)
            found = Cluster(session, run)
            try:
                for number, tier in enumerate(tiers):
                    found.members.append(await _member(rpc, chain.url, run, folder, number, tier))
                yield found
            finally:
                for member in found.members:
                    if member.process is not None and member.exit_code is None:
                        member.kill()


async def _fund(rpc: RpcPool, wallet: Keypair, sol: int) -> None:
    await confirm(rpc, await queries.request_airdrop(rpc, wallet.pubkey(), sol * SOL))


async def _member(rpc: RpcPool, url: str, run: Run, folder: Path, number: int, tier: int) -> MemberProcess:
    wallet = Keypair()
    await _fund(rpc, wallet, 5)
    keypair = folder / f"wallet{number}.json"
    keypair.touch(mode=0o600)
    keypair.write_text(json.dumps(list(bytes(wallet))))
    home = folder / f"member{number}"
    command = [sys.executable, "-m", "tests.e2e.member_process", str(run.key), url, str(keypair), str(home)]
    return MemberProcess(number, tier, home, keypair, [*command, str(tier)])


def finished(state: RunState) -> bool:
    return state.phase is Phase.FINISHED
