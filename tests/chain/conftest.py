"""A chain with the three programs, shared by the tests of this folder; wallets with SOL; the command line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from deploying import deploy_programs
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from localnet.chain.process import ChainProcess
from psyche_chain.chain import queries
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.sender import confirm
from psyche_chain.cli.main import main
from psyche_train.spec import TrainSpec

SOL = 10**9


async def airdrop(rpc: RpcPool, key: Pubkey, lamports: int) -> None:
    await confirm(rpc, await queries.request_airdrop(rpc, key, lamports))


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    async def prepare(url: str) -> None:
        payer = Keypair()
        async with RpcPool([url]) as rpc:
            await airdrop(rpc, payer.pubkey(), 100 * SOL)
            await deploy_programs(rpc, payer)

    with ChainProcess(tmp_path_factory.mktemp("chain"), slot_ms=100) as chain:
        trio.run(prepare, chain.url)
        yield chain.url


@pytest.fixture
def make_wallet(url: str, tmp_path: Path) -> Callable[..., Path]:
    """`make_wallet(name, sol=10)`: a key file with that much SOL."""

    def make(name: str = "wallet", *, sol: float = 10) -> Path:
        keypair, path = Keypair(), tmp_path / f"{name}.json"
        path.write_text(json.dumps(list(bytes(keypair))))
        path.chmod(0o600)

        async def fund() -> None:
            async with RpcPool([url]) as rpc:
                await airdrop(rpc, keypair.pubkey(), int(sol * SOL))

        if sol:
            trio.run(fund)
        return path

    return make


@pytest.fixture
def wallet(make_wallet: Callable[..., Path]) -> Path:
    return make_wallet()


@pytest.fixture
def unresolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the hashes of data and weights out: these tests train nothing and need no torch."""
    monkeypatch.setattr(TrainSpec, "resolve", lambda self: self)


class Cli:
    """Runs command lines in this process and keeps what they printed."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *args: object, keypair: Path | None = None) -> int:
        line = [str(a) for a in args]
        if keypair is not None:
            line += ["--keypair", str(keypair)]
        self._capsys.readouterr()
        status = main(line)
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err + self.out
        return status

    def ok(self, *args: object, keypair: Path | None = None) -> str:
        """The standard output of a command that must succeed, on the shared chain."""
        status = self(*args, "--rpc", self.url, keypair=keypair)
        assert status == 0, self.err
        return self.out


@pytest.fixture
def cli(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name in ("PSYCHE_RPC", "PSYCHE_KEYPAIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    return Cli(url, capsys)
