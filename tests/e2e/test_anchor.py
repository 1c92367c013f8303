"""`anchor build` and `anchor deploy` from a fresh checkout, on the embedded chain and on the reference validator.

Needs the Anchor CLI; the build needs the program toolchain too, and one of the two chains the validator.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sbf_toolchain import tools
from sbf_toolchain.driver import PROGRAMS
from sbf_toolchain.errors import ToolchainError
from solders.keypair import Keypair

from localnet.chain.process import ChainProcess
from localnet.deploy import DeployError, Match, Program, Rpc, buffers, deploy_all, find_programs, verify
from tests.e2e.validator import VALIDATOR, run_validator

ROOT = Path(__file__).resolve().parents[2]
SHARED_TARGET = ROOT / "target/check"
"""Compiled dependencies, shared with the rebuild test."""
ANCHOR = shutil.which("anchor")
SOL = 10**9

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("toolchain"),  # one target/check, and one validator at a time
    pytest.mark.timeout(900),
    pytest.mark.skipif(ANCHOR is None, reason="the Anchor CLI is not on PATH"),
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone has that Anchor reads; nothing was ever built there."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Anchor.toml", "Cargo.toml", "Cargo.lock"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "programs", folder / "programs", ignore=shutil.ignore_patterns("__pycache__"))
    packaged = "psyche_chain/programs"
    shutil.copytree(ROOT / packaged, folder / packaged)
    return folder


@pytest.fixture(scope="module", params=["embedded", "validator"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        with ChainProcess(folder, slot_ms=100) as chain:
            yield chain.url
        return
    if VALIDATOR is None:
        pytest.skip("solana-test-validator is not on PATH")
    with run_validator(folder) as found:
        yield found


def anchor(
    folder: Path, *words: object, status: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_DNA": "1", "CARGO_TERM_COLOR": "never", **variables}
    command = [str(ANCHOR), *map(str, words)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == status, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def funded(folder: Path, rpc: Rpc, sol: int) -> tuple[Path, Keypair]:
    """A user's own key, as the Solana CLI writes it, with that much SOL."""
    keypair = Keypair()
    path = folder / "id.json"
    path.write_text(json.dumps(list(bytes(keypair))))
    try:
        rpc.airdrop(keypair.pubkey(), sol * SOL)
    except DeployError:  # a validator that has just started loses one now and then
        rpc.airdrop(keypair.pubkey(), sol * SOL)
    return path, keypair


def test_anchor_builds_the_committed_programs_in_a_fresh_checkout(checkout: Path) -> None:
    try:
        tools.find_tools()
    except ToolchainError as error:
        pytest.skip(f"the program toolchain is not installed: {error}")
    shutil.rmtree(SHARED_TARGET / "deploy", ignore_errors=True)
    path = os.pathsep.join((str(checkout / "programs/sbf"), os.environ["PATH"]))
    anchor(checkout, "build", "--no-idl", PATH=path, CARGO_TARGET_DIR=str(SHARED_TARGET))
    for name in PROGRAMS:
        built = (SHARED_TARGET / f"deploy/{name}.so").read_bytes()
        assert built == (ROOT / f"psyche_chain/programs/{name}.so").read_bytes(), name
    listed = anchor(checkout, "keys", "list", CARGO_TARGET_DIR=str(SHARED_TARGET)).stdout
    ids = {program.name: str(program.id) for program in find_programs()}
    assert dict(line.split(": ") for line in listed.splitlines()) == ids


def test_anchor_deploys_and_upgrades(checkout: Path, url: str, tmp_path: Path) -> None:
    rpc = Rpc(url)
    try:
        wallet, user = funded(tmp_path, rpc, 30)
        keypair = find_programs()[0].keypair
        stage = [str(checkout / "programs/build.py"), "--stage"]
        subprocess.run(stage, check=True, capture_output=True)
        network = ("--provider.cluster", url, "--provider.wallet", wallet)
        anchor(checkout, "deploy", *network)
        found = verify(rpc, find_programs())
        assert {one.match for one in found.values()} == {Match.EQUAL}
        assert {one.authority for one in found.values()} == {user.pubkey()}
        done = deploy_all(rpc, user, find_programs())
        assert {one.value for one in done.values()} == {"unchanged"}

        # other code of the same length: refused for a stranger, taken from the authority
        changed = checkout / "target/deploy/authorizer.so"
        before = changed.read_bytes()
        assert b"AnchorError" in before
        changed.write_bytes(before.replace(b"AnchorError", b"ANCHORERROR"))
        (tmp_path / "stranger").mkdir()
        stranger, _ = funded(tmp_path / "stranger", rpc, 10)
        refused = ("--provider.cluster", url, "--provider.wallet", stranger)
        ended = anchor(checkout, "deploy", "-p", "authorizer", *refused, status=1)
        assert "Upgrade authority mismatch" in ended.stderr + ended.stdout
        assert verify(rpc, find_programs())["authorizer"].match is Match.EQUAL
        anchor(checkout, "deploy", "-p", "authorizer", *network)
        assert verify(rpc, find_programs())["authorizer"].match is Match.DIFFERENT

        # larger code and then the right one again, without Anchor: its 1.2.2 cannot make room on a new validator
        grown = Program("authorizer", (checkout / "target/deploy/treasurer.so").read_bytes(), keypair)
        assert deploy_all(rpc, user, [grown])["authorizer"].value == "upgraded"
        assert verify(rpc, [grown])["authorizer"].match is Match.EQUAL
        assert deploy_all(rpc, user, find_programs())["authorizer"].value == "upgraded"
        assert {one.match for one in verify(rpc, find_programs()).values()} == {Match.EQUAL}
        assert buffers(rpc, user.pubkey()) == {}
    finally:
        rpc.close()
