"""Bad input is told before anything heavy is loaded, in one sentence, with the right exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from localnet.chain.process import ChainProcess
from psyche_chain.admin.access import authorize
from psyche_chain.admin.create import create_run
from psyche_chain.admin.session import Session
from psyche_chain.chain import accounts
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.sender import Sender
from psyche_chain.cli import exit_codes
from psyche_chain.config import load_config
from tests.e2e.cluster import TINY, deploy, fund

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("startup")]

LOCKS = "XDG_RUNTIME_DIR"
"""Under which a wallet's lock is: with another value, a process is on another machine as far as locks go."""


def key_of(wallet: Path) -> Pubkey:
    return Keypair.from_bytes(bytes(json.loads(wallet.read_text()))).pubkey()


@dataclass
class Place:
    """A chain with runs that nobody has joined."""

    url: str
    folder: Path
    runs: dict[str, str]
    creator: Keypair

    def wallet(self, name: str, *, sol: int = 0) -> Path:
        keypair = Keypair()
        path = self.folder / f"{name}.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(list(bytes(keypair))))
        if sol:
            trio.run(self._fund, keypair, sol)
        return path

    async def _fund(self, wallet: Keypair, sol: int) -> None:
        async with RpcPool([self.url]) as rpc:
            await fund(rpc, wallet, sol)

    def authorize(self, wallet: Path) -> None:
        key = key_of(wallet)

        async def call() -> None:
            async with RpcPool([self.url]) as rpc:
                await authorize(Session(rpc, Sender(rpc, self.creator)), key, max_weight=1, min_tier=1)

        trio.run(call)

    def command(self, run: str, wallet: Path, *, tier: int = 0, folder: str = "state") -> list[str]:
        return [
            sys.executable,
            *("-m", "tests.e2e.member_process", self.runs.get(run, run), self.url, str(wallet)),
            *(str(self.folder / folder), str(tier)),
        ]

    def join(
        self, run: str, wallet: Path, *, tier: int = 0, folder: str = "state", locks: Path | None = None
    ) -> tuple[int, str]:
        """Exit status and the error of a member that cannot start; other `locks` make it another machine."""
        if locks is not None:
            locks.mkdir(exist_ok=True)
        done = subprocess.run(
            self.command(run, wallet, tier=tier, folder=folder),
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ if locks is None else {**os.environ, LOCKS: str(locks)},
        )
        return done.returncode, done.stderr.strip()

    async def until_joined(self, run: str, key: Pubkey) -> None:
        """Wait for the member's addresses on the chain."""
        async with RpcPool([self.url]) as rpc:
            found = await accounts.resolve_run(rpc, self.runs[run])
            with trio.fail_after(120):
                while not (m := await accounts.fetch_membership(rpc, found.run_state, key)) or not m.contact:
                    await trio.sleep(0.2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("startup")
    with ChainProcess(folder / "chain") as chain:
        deploy(chain.url)
        found = Place(chain.url, folder, {}, Keypair())
        trio.run(_create_runs, found)
        yield found


async def _create_runs(place: Place) -> None:
    async with RpcPool([place.url]) as rpc:
        await fund(rpc, place.creator, 100)
        session = Session(rpc, Sender(rpc, place.creator))
        closed = TINY.replace('authority = "open"', 'authority = "creator"')
        newer = TINY.replace("\n[config]", 'min_client_version = "9.1.0"\n\n[config]', 1)
        for name, text in (("open", TINY), ("closed", closed), ("newer", newer)):
            path = place.folder / f"{name}.toml"
            path.write_text(text.replace('run_id = "tiny"', f'run_id = "{name}"').format(steps=8))
            run = await create_run(session, load_config(path), paused=False, report=lambda line: None)
            place.runs[name] = str(run.key)


Case = Callable[[Place], tuple[int, str]]


@pytest.mark.parametrize(
    ("case", "status", "message"),
    [
        (
            lambda p: p.join("no-such-run", p.wallet("a")),
            exit_codes.NOT_FOUND,
            "no run is called 'no-such-run'",
        ),
        (lambda p: p.join("open", p.folder / "none.json"), exit_codes.CONFIG, "there is no wallet at"),
        (lambda p: p.join("open", p.wallet("b")), exit_codes.NO_FUNDS, "holds 0.000000 SOL, joining needs"),
        (lambda p: p.join("newer", p.wallet("c", sol=1)), exit_codes.VERSION, "needs client 9.1.0 or newer"),
        (
            lambda p: p.join("closed", p.wallet("d", sol=1)),
            exit_codes.PROGRAM,
            "authorization does not exist",
        ),
        (
            lambda p: p.join("open", p.wallet("e", sol=1), tier=2),
            exit_codes.CONFIG,
            "tier 2 is not in this run",
        ),
    ],
    ids=["unknown-run", "no-wallet", "no-funds", "too-old", "not-authorized", "no-such-tier"],
)
def test_member_that_cannot_join_says_why_at_once(
    place: Place, case: Case, status: int, message: str
) -> None:
    code, error = case(place)
    assert code == status, error
    assert message in error
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error


def test_authorization_limits_the_tier(place: Place) -> None:
    wallet = place.wallet("limited", sol=1)
    place.authorize(wallet)
    code, error = place.join("closed", wallet, tier=0)
    assert code == exit_codes.PROGRAM
    assert "the authorization allows tier 1 and above" in error


def test_second_process_with_the_same_folder_or_wallet_is_refused(place: Place) -> None:
    wallet, other = place.wallet("first", sol=1), place.wallet("second", sol=1)
    first = subprocess.Popen(
        place.command("open", wallet, tier=1, folder="taken"),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        lock = place.folder / "taken" / "client.lock"
        deadline = time.monotonic() + 60
        while not (lock.exists() and lock.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        code, error = place.join("open", other, tier=1, folder="taken")
        assert code == exit_codes.ERROR
        assert (
            f"another process uses the state folder {place.folder / 'taken'} (process {first.pid})" in error
        )
        code, error = place.join("open", wallet, tier=1, folder="elsewhere")
        assert code == exit_codes.ERROR
        assert "with the same wallet" in error
        trio.run(place.until_joined, "open", key_of(wallet))
        code, error = place.join("open", wallet, tier=1, folder="elsewhere", locks=place.folder / "machine2")
        assert code == exit_codes.ERROR
        assert "is a member of run open already, at /ip4/" in error
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait(10)
