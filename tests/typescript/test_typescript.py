"""TypeScript users: the programs of docs/typescript.md, compiled strictly and run with both of Anchor's clients."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from localnet.chain.process import ChainProcess
from localnet.deploy.programs import deploy_all, find_programs
from localnet.deploy.rpc import Rpc
from psyche_chain.admin import access, rewards
from psyche_chain.admin.create import create_run
from psyche_chain.admin.session import open_session
from psyche_chain.admin.settle import settle
from psyche_chain.chain import accounts, ids, layout
from psyche_chain.chain.accounts import Run
from psyche_chain.chain.state import Phase, RunState, bits_to_set
from psyche_chain.config import RunConfig, load_config
from psyche_train.spec import TrainSpec
from tests.chain.support import SOL, airdrop
from tests.chain.test_flow import Member, drive
from tests.node_packages import node_modules

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHIPPED = ROOT / "programs/typescript"
PROGRAMS = ("authorizer", "coordinator", "treasurer")
CLIENTS = ("@anchor-lang/core", "@coral-xyz/anchor")


def example_programs() -> dict[str, str]:
    """The TypeScript of the page, by the file name in its first line."""
    blocks = re.findall(r"^```ts\n(.*?)^```$", (ROOT / "docs/typescript.md").read_text(), re.M | re.S)
    return {block.split()[1].rstrip(":"): block for block in blocks}


def run_node(folder: Path, *words: object, timeout: float = 120) -> str:
    command = ["node", *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module", params=CLIENTS)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's set-up in a folder, compiled; for each of the clients."""
    packages = node_modules(HERE)
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(packages)
    (folder / "psyche").mkdir()
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(HERE / name, folder)
    for file in SHIPPED.glob("*.ts"):
        shutil.copy(file, folder / "psyche")
    for name in PROGRAMS:
        shutil.copy(ROOT / f"psyche_chain/programs/{name}.json", folder / "psyche")
    shutil.copy(SHIPPED / "types.mjs", folder)
    run_node(folder, "types.mjs", *(f"psyche/{name}.json" for name in PROGRAMS))
    scripts = example_programs() | {file.name: file.read_text() for file in HERE.glob("*.ts")}
    for name, text in scripts.items():
        (folder / name).write_text(text.replace("@anchor-lang/core", request.param))
    run_node(folder, "node_modules/typescript/bin/tsc", "--project", ".")
    return folder


@dataclass(frozen=True, slots=True)
class World:
    """A run that is over and paid, and others that wait for a tick, of the same operator."""

    url: str
    ws_url: str
    operator: Path
    done: Run
    done_state: RunState
    members: tuple[Keypair, Keypair]
    live: dict[str, Run]
    """One for each client."""


def config_file(folder: Path, run_id: str, **changes: int) -> RunConfig:
    text = (ROOT / "config/smoke.toml").read_text().replace('"smoke"', f'"{run_id}"', 1)
    for key, value in changes.items():
        text, count = re.subn(rf"^{key} = \d+$", f"{key} = {value}", text, flags=re.M)
        assert count == 1, key
    path = folder / f"{run_id}.toml"
    path.write_text(text + '[join]\nauthority = "creator"\ncapacity = 5\n')
    return load_config(path)


async def build_world(chain: ChainProcess, folder: Path) -> World:
    keys = [Keypair() for _ in range(3)]
    operator = folder / "operator.json"
    operator.write_text(json.dumps(list(bytes(keys[0]))))
    over = config_file(folder, "over", total_steps=3, epoch_time=60)
    waiting = [config_file(folder, f"waiting-{i}", waiting_for_members_extra_time=1) for i in range(2)]
    async with (
        open_session([chain.url], keys[0]) as boss,
        open_session([chain.url], keys[1]) as one,
        open_session([chain.url], keys[2]) as two,
    ):
        for session in (boss, one, two):
            await airdrop(session.rpc, session.wallet, 10 * SOL)
        runs = []
        for config in (over, *waiting):
            run = await create_run(boss, config, paused=False, report=lambda line: None)
            members = [Member(one, run, 0), Member(two, run, 1)]
            for member in members:
                await access.authorize(boss, member.signer)
                await member.join()
            runs.append(run)
            if config is over:
                await drive(members, until=Phase.FINISHED)
                await rewards.claim(one, run)
                state = await accounts.fetch_state(boss.rpc, run)
                await settle(boss, run)
    return World(
        chain.url,
        chain.ws_url,
        operator,
        runs[0],
        state,
        (keys[1], keys[2]),
        dict(zip(CLIENTS, runs[1:], strict=True)),
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch, ChainProcess(folder / "chain", slot_ms=100) as chain:
        patch.setattr(TrainSpec, "resolve", lambda self: self)  # these runs train nothing
        rpc = Rpc(chain.url)
        deploy_all(rpc, Keypair(), find_programs())
        rpc.close()
        yield trio.run(build_world, chain, folder)


def test_readers_are_what_the_layout_gives() -> None:
    done = subprocess.run(
        [sys.executable, SHIPPED / "generate.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name)


def same(found: Any, raw: Any, path: str) -> int:
    """Compare a decoded JSON value with the raw NumPy one; the number of leaves compared."""
    if isinstance(found, dict):
        names = {n for n in raw.dtype.names if not n.startswith("_") and n != "uri_len"}
        assert {snake(name) for name in found} == names, path
        return sum(same(value, raw[snake(name)], f"{path}.{name}") for name, value in found.items())
    dtype = raw.dtype
    if path.endswith(".uri"):
        assert found.encode() == bytes(raw).rstrip(b"\0"), path
    elif dtype.str == "<u8" and raw.shape == (4,):
        assert found == sorted(bits_to_set(raw)), path
    elif isinstance(found, list):
        assert len(found) == len(raw), path
        return sum(same(one, raw[i], f"{path}[{i}]") for i, one in enumerate(found))
    elif dtype.kind == "V":
        value = bytes(raw)
        assert found in (value.hex(), str(Pubkey.from_bytes(value))), path
    elif raw.shape == (2,):
        assert int(found) == int(raw[0]) | int(raw[1]) << 32, path
    else:
        assert int(found) == int(raw), path
    return 1


@pytest.mark.slow
@pytest.mark.xdist_group("typescript")
def test_run_state_is_decoded_field_by_field(world: World, compiled: Path) -> None:
    found = json.loads(run_node(compiled, "state.js", world.url, world.done.run_state))
    rpc = Rpc(world.url)
    account = rpc.account(world.done.run_state)
    rpc.close()
    assert account is not None
    dtype = layout.run_state_dtype(world.done_state.capacity)
    raw: Any = np.frombuffer(account[2], dtype=dtype, count=1)[0]
    tail = {name: found.pop(name) for name in ("slots", "commitments", "attestations", "returned")}
    assert same(found, raw["header"], "header") > 100
    assert same(tail["slots"], raw["slots"], "slots") > 50
    assert same(tail["commitments"], raw["commitments"], "commitments") == 20
    assert same(tail["attestations"], raw["attestations"], "attestations") == 32
    assert tail["returned"] == []


@pytest.mark.slow
@pytest.mark.xdist_group("typescript")
def test_page_reads_a_run(world: World, compiled: Path) -> None:
    lines = run_node(compiled, "read.js", world.url, world.done.key).splitlines()
    state = world.done_state
    operator = Keypair.from_bytes(bytes(json.loads(world.operator.read_text()))).pubkey()
    first, second = (member.pubkey() for member in world.members)
    assert lines[:4] == [
        f"run over of {operator}",
        f"phase Finished epoch {state.epoch} step 3 of 3",
        f"history {state.history.hex()}",
        f"checkpoint 3 {state.checkpoint.weights_hash.hex()}",
    ]
    assert f"slot 0 {first} tier 0" in lines
    assert f"slot 1 {second} tier 1" in lines
    assert sum(line.startswith("round ") and line.endswith("accepted 0,1") for line in lines) >= 2
    assert any(re.fullmatch(r"pool \w+ paid 3000", line) for line in lines)
    assert sorted(line for line in lines if line.startswith("member ")) == sorted(
        [
            f"member {first} earned 3000 claimed 3000 authorized true",
            f"member {second} earned 1500 claimed 0 authorized true",
        ]
    )


@pytest.mark.slow
@pytest.mark.xdist_group("typescript")
def test_page_authorizes_ticks_and_hears_events(
    world: World, compiled: Path, request: pytest.FixtureRequest
) -> None:
    grantee = Keypair().pubkey()
    live = world.live[request.node.callspec.params["compiled"]]
    words = ("drive.js", world.url, world.ws_url, world.operator, live.key, grantee, 1234)
    lines = run_node(compiled, *words).splitlines()
    operator = Keypair.from_bytes(bytes(json.loads(world.operator.read_text()))).pubkey()
    address = ids.authorization_address(operator, grantee)
    assert f"authorization {address}" in lines
    assert "event phaseChanged" in lines
    assert "event roundRateSet" in lines  # emitted when the treasurer calls the coordinator
    assert any(line.startswith("listener 1 -> ") for line in lines)
    assert lines[-1] == "done"


@pytest.mark.slow
@pytest.mark.xdist_group("typescript")
def test_events_of_inner_calls(world: World, compiled: Path, request: pytest.FixtureRequest) -> None:
    pool = ids.pool_address(world.done.run_state)
    found = [json.loads(line) for line in run_node(compiled, "events.js", world.url, pool).splitlines()]
    ours = [name for entry in found for name in entry["ours"]]
    assert {"runCreated", "specSealed", "configured", "roundRateSet", "phaseChanged", "settled"} <= set(ours)
    theirs = [name for entry in found for name in entry["theirs"]]
    if request.node.callspec.params["compiled"] == "@anchor-lang/core":
        assert theirs == ours
    else:  # the difference that the page names; when this fails, the page can do without it
        assert theirs == []
