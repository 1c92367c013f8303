"""What commands write: safe for a terminal whatever strangers called their runs, and told where it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyche_chain.cli import exit_codes
from psyche_train.cli import output
from tests.chain.support import Cli

ROOT = Path(__file__).resolve().parents[2]
SMOKE = (ROOT / "config/smoke.toml").read_text()
NO_REWARDS = SMOKE[: SMOKE.index("[rewards]")]
RUN_MAIN = "import sys; from psyche_chain.cli.main import main; sys.exit(main(['--version']))"


@given(st.text())
def test_no_text_steers_a_terminal(text: str) -> None:
    shown = output.plain(text)
    assert all(c == "\n" or (ord(c) >= 32 and not 127 <= ord(c) < 160) for c in shown)
    assert "\n" not in output.one_line(text)
    shown.encode("utf-8")
    assert json.loads(output.plain(json.dumps({"a": text}, ensure_ascii=False))) == {"a": text}


def test_what_people_write_stays() -> None:
    text = "Größe 🧪 训练 👩‍🔬 [bold]"
    assert output.plain(text) == text


@pytest.mark.usefixtures("unresolved")
def test_a_runs_name_cannot_steer_the_terminal(cli: Cli, wallet: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    name = "\x1b[31mred\nphase  Finished \u202e"
    path.write_text(NO_REWARDS.replace('name = "Smoke"', f"name = {json.dumps(name)}", 1))
    assert json.dumps(name) in path.read_text()
    key = cli.ok("create-run", path, keypair=wallet).strip()
    for command in (("status", key), ("show", key), ("update-run", key, path, "--dry-run")):
        out = cli.ok(*command, keypair=wallet if command[0] == "update-run" else None)
        assert "\x1b" not in out + cli.err
        assert "\u202e" not in out
        assert "\nphase  Finished" not in out
    rows = cli.ok("list-runs")
    assert "\x1b" not in rows + cli.err
    path.write_text(NO_REWARDS)
    change = cli.ok("update-run", key, path, keypair=wallet)
    assert "name: \\u001b[31mred\\nphase  Finished \\u202e -> Smoke" in change


@pytest.mark.parametrize("closed", [False, True])
def test_a_full_or_closed_output_is_told_in_a_sentence(closed: bool) -> None:
    with Path("/dev/full").open("w") as full:
        line = [sys.executable, "-c", RUN_MAIN]
        if closed:
            line = ["sh", "-c", 'exec "$@" >&-', "sh", *line]
        done = subprocess.run(line, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == exit_codes.ERROR
    told = "cannot be shown: standard output is closed" if closed else "standard output: No space left"
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-c", RUN_MAIN]
    done = subprocess.run(line, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (exit_codes.OK, "")


@pytest.mark.usefixtures("unresolved")
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_cost_is_told_where_the_result_cannot_be(
    cli: Cli, wallet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(NO_REWARDS)
    key = cli.ok("create-run", path, keypair=wallet).strip()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        status = cli("pause", key, "--rpc", cli.url, *form, keypair=wallet)
    assert status == exit_codes.ERROR
    assert "(5000 lamports) for 1 transaction" in cli.err
    assert "standard output is closed" in cli.err
    assert "Paused" in cli.ok("status", key)
