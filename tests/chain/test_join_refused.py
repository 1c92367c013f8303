"""What `join` refuses before anything is sent or written: by the run's specification, or by what is not here."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from psyche_chain.cli import exit_codes
from tests.chain.support import Cli

ROOT = Path(__file__).resolve().parents[2]
SMOKE = (ROOT / "config/smoke.toml").read_text()

pytestmark = pytest.mark.usefixtures("unresolved")


@pytest.fixture
def run(cli: Cli, wallet: Path, tmp_path: Path) -> str:
    """A run in helper mode."""
    path = tmp_path / "run.toml"
    text = re.sub(r"\[rewards\]\n(.+\n)*", "", SMOKE)
    path.write_text(text.replace("max_tier = 1", "max_tier = 1\nhelper_fraction = 0.5"))
    return cli.ok("create-run", path, keypair=wallet).strip()


@pytest.mark.parametrize("tier", ["0", "1"])
@pytest.mark.parametrize("options", [("--device", "cpu", "--ranks", "2"), ("--device", "cuda:0,1")])
def test_several_ranks_in_helper_mode(
    cli: Cli, wallet: Path, tmp_path: Path, run: str, options: tuple[str, ...], tier: str
) -> None:
    state = tmp_path / "state"
    line = ("join", run, "--rpc", cli.url, "--state-dir", state, "--tier", tier, *options)
    assert cli(*line, keypair=wallet) == exit_codes.CONFIG
    assert (
        "is in helper mode (matformer.helper_fraction), which trains on one rank, and 2 were asked for"
        in cli.err
    )
    assert "choose one --device and leave --ranks out" in cli.err
    assert re.search(r"members +0 ", cli.ok("status", run))


@pytest.mark.parametrize("place", ["no/such/folder", "", "~/no-such-checkpoint", "./model.safetensors"])
def test_a_checkpoint_that_is_not_there(
    cli: Cli, wallet: Path, tmp_path: Path, run: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    line = ("join", run, "--rpc", cli.url, "--state-dir", tmp_path / "state", "--checkpoint-from", place)
    assert cli(*line, keypair=wallet) == exit_codes.CONFIG
    assert f"--checkpoint-from {place!r} does not exist" in cli.err
    assert "give a checkpoint's directory" in cli.err


def test_other_forms_of_a_checkpoint_are_not_looked_for_before_they_are_needed(
    cli: Cli, make_wallet: Callable[..., Path], tmp_path: Path, run: str
) -> None:
    """The next check is reached: this wallet cannot pay."""
    poor = make_wallet("poor", sol=0)
    for place in (tmp_path, "hub:a/b", "s3://bucket/x"):
        line = ("join", run, "--rpc", cli.url, "--state-dir", tmp_path / "state", "--checkpoint-from", place)
        assert cli(*line, keypair=poor) == exit_codes.NO_FUNDS
