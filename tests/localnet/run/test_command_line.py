"""The `psyche-localnet` command line: what is refused, with which exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from localnet.cli import main
from psyche_chain.cli import exit_codes

SMOKE = str(Path(__file__).resolve().parents[3] / "config" / "smoke.toml")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["run", SMOKE, "--clients", "2", "--tiers", "0,x"], exit_codes.USAGE, "--tiers"),
        (["run", SMOKE, "--clients", "2", "--kill-random", "3"], exit_codes.USAGE, "--kill-random 3"),
        (["run", SMOKE, "--clients", "2", "--out", SMOKE], exit_codes.CONFIG, "is not a folder"),
        (["run", SMOKE, "--clients", "2", "--rpc", "foo"], exit_codes.USAGE, "'foo' is not an http://"),
        *(
            (["run", SMOKE, *words.split()], exit_codes.USAGE, said)
            for words, said in (
                ("--latency -1", "--latency -1: allowed are 0 to 10000 milliseconds"),
                ("--latency nan", "--latency nan: allowed are"),
                ("--jitter 1e9", "--jitter 1e+09: allowed are"),
                ("--loss 100", "--loss 100: allowed are 0 to 90 per cent"),
                ("--bandwidth 0", '--bandwidth "0": allowed are 0.01 to 100000 Mbit/s'),
                ("--bandwidth 10/", '--bandwidth "10/"'),
                ("--bandwidth 10/nan", '--bandwidth "10/nan"'),
                ("--bandwidth fast", '--bandwidth "fast"'),
                ("--partition 1", "--partition needs --partition-for SECONDS"),
                ("--partition 3 --partition-for 5", "--partition 3: members are 0 to 2"),
                ("--partition 0,1,2 --partition-for 5", "all members are on one side"),
                ("--partition one --partition-for 5", '--partition "one": numbers with commas'),
                ("--partition-for 5", "need --partition"),
            )
        ),
        (["run", "none.toml"], exit_codes.CONFIG, "no such file"),
        (["up", "--port", "99999"], exit_codes.USAGE, "--port"),
        (["deploy", "--rpc", "foo"], exit_codes.USAGE, "'foo' is not an http://"),
        (["deploy", "--payer", "none.json"], exit_codes.CONFIG, "cannot read the keypair none.json"),
    ],
)
def test_what_cannot_work_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], status: int, said: str
) -> None:
    assert main(words) == status
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_deploying_to_nobody_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status = main(["deploy", "--rpc", "http://127.0.0.1:9", "--state-dir", str(tmp_path)])
    assert status == exit_codes.CHAIN
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["64", json.dumps([1, 2, 3]), "nonsense"])
def test_a_payer_that_is_no_key_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "key.json"
    path.write_text(text)
    assert main(["deploy", "--payer", str(path)]) == exit_codes.CONFIG
    assert f"{path} is no keypair" in capsys.readouterr().err


def test_serving_a_chain_does_not_load_what_only_training_needs() -> None:
    """`up` is light: torch alone would cost it most of a gigabyte and of its time to start."""
    code = "import sys, localnet.cli; print(*{'torch', 'transformers', 'libp2p', 'matplotlib'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == []
