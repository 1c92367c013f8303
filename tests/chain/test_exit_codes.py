"""Each exit status is reached by a real command line."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair

from psyche_chain.chain import accounts, ids, queries
from psyche_chain.chain.errors import DecodeError
from psyche_chain.cli import exit_codes
from tests.chain.money import address
from tests.chain.support import Cli

ROOT = Path(__file__).resolve().parents[2]
SMOKE = (ROOT / "config/smoke.toml").read_text()

WITHOUT_TORCH = """
import sys
from psyche_train.spec import TrainSpec
TrainSpec.resolve = lambda self: self  # else every start reads data and makes weights
from psyche_chain.cli.main import main
sys.exit(main())
"""

pytestmark = pytest.mark.usefixtures("unresolved")


def test_every_status_but_two_by_a_command(
    cli: Cli, make_wallet: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other, poor = make_wallet("owner"), make_wallet("other"), make_wallet("poor", sol=0)
    path = tmp_path / "run.toml"
    path.write_text(SMOKE.replace('name = "Smoke"', 'name = "Smoke"\nmin_client_version = "99.0.0"'))
    broken = tmp_path / "broken.toml"
    broken.write_text("[config")
    key = cli.ok("create-run", path, keypair=owner).strip()
    monkeypatch.setattr("psyche_chain.chain.rpc.DEFAULT_DEADLINE_S", 1.0)
    monkeypatch.setattr("psyche_train.cli.output.asks", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    reached = {exit_codes.OK}
    for expected, line, keypair, url, said in (
        (
            exit_codes.ERROR,
            ("set-authority", key, address(other)),
            owner,
            cli.url,
            "not confirmed; nothing was sent",
        ),
        (exit_codes.USAGE, ("pause",), owner, cli.url, "Missing argument"),
        (exit_codes.CONFIG, ("validate-config", broken), None, None, f"{broken}: not TOML"),
        (exit_codes.CONFIG, ("pause", key), tmp_path / "no.json", cli.url, "there is no wallet at"),
        (exit_codes.NOT_FOUND, ("status", "ghost"), None, cli.url, "no run is called 'ghost'"),
        (exit_codes.NO_FUNDS, ("create-run", path), poor, cli.url, "has no SOL"),
        (exit_codes.CHAIN, ("status", key), None, "http://127.0.0.1:9", "no RPC endpoint answered"),
        (exit_codes.PROGRAM, ("pause", key), other, cli.url, f"belongs to {address(owner)}"),
        (exit_codes.VERSION, ("join", key), other, cli.url, "needs client 99.0.0 or newer"),
    ):
        words = [*line, *(["--rpc", url] if url else [])]
        status = cli(*words, keypair=keypair)
        assert (status, said in cli.err) == (expected, True), (words, cli.err)
        assert cli.out == ""
        reached.add(status)
    named = {getattr(exit_codes, n) for n in dir(exit_codes) if n.isupper()}
    elsewhere = {exit_codes.CLUSTER, exit_codes.INTERRUPTED, exit_codes.TERMINATED, exit_codes.TRAINER}
    # test_cluster.py, below, e2e/test_signals.py, and client/test_loop.py
    assert named - reached == elsewhere


@pytest.mark.slow
def test_interrupted(cli: Cli, wallet: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(SMOKE)
    key = cli.ok("create-run", path, keypair=wallet).strip()
    line = [sys.executable, "-m", "psyche_chain", "status", key, "--watch", "--rpc", cli.url]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "WaitingForMembers" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == exit_codes.INTERRUPTED
    process.stdout.close()


@pytest.mark.slow
def test_create_run_survives_kill_9(cli: Cli, wallet: Path, tmp_path: Path) -> None:
    """A real process, killed as soon as it tells of a step, again and again."""
    path = tmp_path / "run.toml"
    path.write_text(SMOKE)
    line = [sys.executable, "-c", WITHOUT_TORCH, "create-run", str(path)]
    line += ["--rpc", cli.url, "--keypair", str(wallet)]
    environment = {**os.environ, "NO_COLOR": "1"}
    told: list[str] = []
    kills = 0
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        process = subprocess.Popen(
            line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        step = process.stderr.readline()
        told.append(step)
        if step.startswith(("fees", "nothing")):
            assert process.wait(30) == 0
            break
        process.kill()
        process.communicate()
        kills += 1
    else:
        pytest.fail("it never completes")
    steps = [t.split()[0] for t in told]
    assert kills >= 4
    assert len(steps) == len(set(told)), told  # no step was done twice
    assert cli.ok("create-run", path, keypair=wallet)
    assert cli.err == "nothing to do: no transaction was sent\n"


@pytest.mark.slow
def test_interrupted_create_run_says_that_it_can_be_run_again(cli: Cli, wallet: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(SMOKE)
    line = [sys.executable, "-c", WITHOUT_TORCH, "create-run", str(path), "--run-id", "interrupted"]
    line += ["--rpc", cli.url, "--keypair", str(wallet)]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline()  # its first step
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == exit_codes.INTERRUPTED
    assert "interrupted; what was sent may still land" in " ".join(said.split())
    assert cli.ok("create-run", path, "--run-id", "interrupted", keypair=wallet)


def test_wallet_files_that_are_no_wallets(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    short = tmp_path / "short.json"
    short.write_text(str(list(bytes(Keypair())))[:-9])
    for path, said in (
        (folder, "cannot be read"),
        (short, "is not a key file"),
        (tmp_path / "x", "no wallet at"),
    ):
        for line in (("pause", "x"), ("wallet", "address"), ("claim", "x")):
            assert cli(*line, keypair=path) == exit_codes.CONFIG, (path, line)
            assert said in cli.err
            assert str(path) in cli.err


def test_a_wallet_in_a_file_is_not_said_to_exist(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert cli("wallet", "new", keypair=tmp_path / "file" / "key.json") == exit_codes.CONFIG
    assert "file is not a folder" in cli.err
    assert cli("wallet", "new", keypair=tmp_path / "made" / "key.json") == exit_codes.OK


def test_what_is_no_mint_is_not_taken_for_one(cli: Cli, wallet: Path) -> None:
    assert cli("wallet", "balance", "--mint", address(wallet), "--rpc", cli.url, keypair=wallet) == (
        exit_codes.NOT_FOUND
    )
    assert "is not a token mint" in cli.err
    holder = bytearray(165)  # a token account; its byte 45, by which a mint says that it is one, is of a key
    holder[45] = 1
    for owner in (ids.TOKEN_ID, ids.TOKEN_2022_ID):
        for data in (bytes(holder), bytes(holder) + b"\x02" + bytes(20)):
            with pytest.raises(DecodeError, match="is not a token mint"):
                accounts.decode_mint(queries.Account(Keypair().pubkey(), owner, 1, data, 0))
    mint = bytes(holder) + b"\x01" + bytes(20)
    assert (
        accounts.decode_mint(queries.Account(Keypair().pubkey(), ids.TOKEN_2022_ID, 1, mint, 0)).decimals == 0
    )


def test_the_help_names_every_status(cli: Cli) -> None:
    assert cli("--help") == exit_codes.OK
    text: Any = " ".join(cli.out.split())
    for name in dir(exit_codes):
        if name.isupper():
            assert f" {getattr(exit_codes, name)} " in text, name
