"""`identity`, `doctor RUN`, `join --listen` and `--announce` with odd inputs: a sentence, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from psyche_chain.cli import exit_codes
from psyche_chain.cli.options import check_listen
from psyche_chain.errors import PsycheError
from tests.chain.support import Cli

ODD_RUNS = ["no-such-run", "1" * 44, "x" * 500, "\x1b[31mred\x1b[0m", "../../etc/passwd", "ru\u202en", ""]
ODD_ADDRESSES = [
    "127.0.0.1:4001", "/ip4/127.0.0.1", "/ip4/300.1.1.1/tcp/1", "/ip4/127.0.0.1/tcp/65536", "/ip4/127.0.0.1/tcp/-1",
    "/ip4/127.0.0.1/udp/4001", "/ip4/0.0.0.0/tcp/4001/p2p/x", "None", "\x1b[31m", "/ip4/" + "1" * 5000, "\n", "",
]  # fmt: skip


def helpful(cli: Cli) -> None:
    """What was said is a sentence, without a traceback and without the terminal's control characters."""
    assert cli.err.strip(), "nothing was said"
    assert "Traceback" not in cli.err
    assert "\x1b[31m" not in cli.err
    assert "\u202e" not in cli.err
    assert len(cli.err) < 4000, "a long name is not repeated whole"


@pytest.mark.parametrize("command", ["identity", "doctor"])
@pytest.mark.parametrize("name", ODD_RUNS)
def test_runs_that_are_not_there(cli: Cli, wallet: Path, command: str, name: str) -> None:
    assert cli(command, name, "--rpc", cli.url, keypair=wallet) not in (0, 1)
    helpful(cli)


@pytest.mark.parametrize("address", ODD_ADDRESSES)
def test_places_where_nobody_can_listen(address: str) -> None:
    with pytest.raises(PsycheError, match="is not an address to listen on") as caught:
        check_listen(address)
    assert "--listen /ip4/0.0.0.0/tcp/4001" in str(caught.value.hint)


def test_listening_nowhere_is_allowed() -> None:
    check_listen("none")


@pytest.mark.parametrize("option", ["--listen", "--announce"])
@pytest.mark.parametrize("address", ["nonsense", "\x1b[31m", "/ip4/203.0.113.7/udp/1"])
def test_join_refuses_them_before_anything_starts(
    cli: Cli, wallet: Path, tmp_path: Path, option: str, address: str
) -> None:
    state = tmp_path / "state"
    line = ("join", "no-such-run", "--rpc", cli.url, "--state-dir", state, option, address)
    assert cli(*line, keypair=wallet) == exit_codes.USAGE
    helpful(cli)
    assert option in cli.err
    assert not state.exists()
