"""Clusters on which the programs are missing, wrong or of another version."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from solders.keypair import Keypair

from localnet.chain.process import ChainProcess
from localnet.deploy.loader import deploy_program
from localnet.deploy.programs import find_programs
from localnet.deploy.rpc import Rpc
from psyche_chain.chain import ids
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.cli import exit_codes
from psyche_chain.wallet import load_wallet
from tests.chain.money import lamports
from tests.chain.support import SOL, Cli, airdrop

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("unresolved")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A chain of its own, without the programs."""
    with ChainProcess(tmp_path_factory.mktemp("bare"), slot_ms=50) as chain:
        yield chain.url


def rich(url: str, path: Path) -> Path:
    key = Keypair()
    path.write_text(json.dumps(list(bytes(key))))
    path.chmod(0o600)

    async def fund() -> None:
        async with RpcPool([url]) as rpc:
            await airdrop(rpc, load_wallet(path)[0].pubkey(), 100 * SOL)

    trio.run(fund)
    return path


def test_programs_that_are_missing_or_wrong_are_named(cli: Cli, bare: str, tmp_path: Path) -> None:
    wallet = rich(bare, tmp_path / "w.json")
    config = ROOT / "config/smoke.toml"
    for line in (
        ("list-runs",),
        ("status", "x"),
        ("rewards", "x"),
        ("list-authorizations", "--by", address_of(wallet)),
    ):
        assert cli(*line, "--rpc", bare) == exit_codes.CLUSTER, line
        assert f"the coordinator ({ids.COORDINATOR_ID}) is missing" in cli.err
        assert "private cluster" in cli.err
        assert "psyche-localnet deploy" in cli.err
    for line in (("create-run", config), ("pause", "x"), ("claim", "x"), ("join", "x"), ("tick", "x")):
        assert cli(*line, "--rpc", bare, keypair=wallet) == exit_codes.CLUSTER, line
    assert lamports(bare, wallet) == 100 * SOL
    assert cli("doctor", "--rpc", bare, keypair=wallet) == exit_codes.CLUSTER
    assert "program coordinator  missing" in cli.out

    # the authorizer's code under the coordinator's id: it is there, but it is not ours
    programs = {p.name: p for p in find_programs()}
    rpc = Rpc(bare)
    payer = Keypair.from_bytes(bytes(json.loads(wallet.read_text())))
    for name, code in (
        ("authorizer", "authorizer"),
        ("coordinator", "authorizer"),
        ("treasurer", "treasurer"),
    ):
        deploy_program(rpc, payer, programs[name].keypair, programs[code].elf)
    rpc.close()
    assert cli("create-run", config, "--rpc", bare, keypair=wallet) == exit_codes.CLUSTER
    assert f"the coordinator ({ids.COORDINATOR_ID}) is another version" in cli.err
    assert "refused with" in cli.err
    assert "authorizer (" not in cli.err
    assert cli("doctor", "--rpc", bare, "--json", keypair=wallet) == exit_codes.CLUSTER
    states: dict[str, Any] = {p["name"]: p["state"] for p in json.loads(cli.out)["programs"]}
    assert states == {"coordinator": "another version", "authorizer": "ok", "treasurer": "ok"}


def address_of(wallet: Path) -> str:
    return str(load_wallet(wallet)[0].pubkey())
