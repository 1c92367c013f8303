"""A chain with the three programs, shared by the tests of this folder; wallets with SOL; the command line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from solders.keypair import Keypair

from localnet.chain.process import ChainProcess
from localnet.deploy.programs import deploy_all, find_programs
from localnet.deploy.rpc import Rpc
from psyche_chain.chain.rpc import RpcPool
from psyche_train.spec import TrainSpec
from tests.chain.support import SOL, Cli, airdrop


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ChainProcess(tmp_path_factory.mktemp("chain"), slot_ms=50) as chain:
        rpc = Rpc(chain.url)
        deploy_all(rpc, Keypair(), find_programs())
        rpc.close()
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


@pytest.fixture(autouse=True)
def quick_polls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared chain makes ten slots a second: look for a confirmation as often."""
    if "url" in request.fixturenames:
        monkeypatch.setattr("psyche_chain.chain.sender.FIRST_POLL_S", 0.02)


@pytest.fixture
def cli(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name in ("PSYCHE_RPC", "PSYCHE_KEYPAIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    return Cli(url, capsys)
