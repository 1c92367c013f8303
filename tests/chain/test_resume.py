"""Commands of several transactions, cut off at every boundary between two of them, and run again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psyche_chain.admin import settle
from psyche_chain.chain.sender import Sender
from psyche_chain.cli import exit_codes
from tests.chain.faults import Cut, FaultInjectingSender
from tests.chain.members import take_part
from tests.chain.money import deposited, fees_paid, lamports
from tests.chain.support import Cli

ROOT = Path(__file__).resolve().parents[2]
SMOKE = (ROOT / "config/smoke.toml").read_text()
PLAIN = SMOKE[: SMOKE.index("[rewards]")]
SOL = 10**9

pytestmark = pytest.mark.usefixtures("unresolved")
both_cuts = pytest.mark.parametrize("cut", list(Cut), ids=lambda c: c.name.lower())


@pytest.fixture
def run_file(tmp_path: Path) -> Callable[..., Path]:
    """`run_file((old, new), ..., text=SMOKE)`: a configuration with replacements."""

    def write(*changes: tuple[str, str], text: str = SMOKE) -> Path:
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / f"run{len(list(tmp_path.glob('run*.toml')))}.toml"
        path.write_text(text)
        return path

    return write


def interrupted(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, cut: Cut, *line: object, keypair: Path
) -> tuple[list[str], str]:
    """Run a command again and again, cut off after one transaction each time, until it succeeds.

    Returns:
        The labels of the transactions that landed, and the last output.
    """
    with monkeypatch.context() as patch:
        faulty = FaultInjectingSender(patch, cut)
        for _ in range(40):
            faulty.next_invocation()
            status = cli(*line, "--rpc", cli.url, keypair=keypair)
            if status == 0:
                break
            assert status == exit_codes.CHAIN, cli.err
            assert "cut off" in cli.err
        else:
            pytest.fail("it never completes")
    assert faulty.cuts >= len(faulty.labels) - 1
    return faulty.labels, cli.out


def labels_of(cli: Cli, monkeypatch: pytest.MonkeyPatch, *line: object, keypair: Path) -> list[str]:
    """The transactions of the command when nothing goes wrong."""
    labels: list[str] = []
    send = Sender.send

    async def listen(sender: Sender, *args: Any, **named: Any) -> Any:
        labels.append(named["label"])
        return await send(sender, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Sender, "send", listen)
        cli.ok(*line, keypair=keypair)
    return labels


@both_cuts
@pytest.mark.parametrize("text", [SMOKE, PLAIN], ids=["rewards", "plain"])
def test_create_run_completes_and_orphans_no_rent(
    cli: Cli,
    make_wallet: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    run_file: Any,
    text: str,
    cut: Cut,
) -> None:
    path = run_file(text=text)
    smooth, rough = make_wallet("smooth"), make_wallet("rough")
    expected = labels_of(cli, monkeypatch, "create-run", path, keypair=smooth)
    labels, key = interrupted(cli, monkeypatch, cut, "create-run", path, keypair=rough)
    assert labels == expected
    assert len(labels) >= 5
    assert json.loads(cli.ok("show", key.strip(), "--json"))["status"]["phase"] == "WaitingForMembers"
    assert deposited(cli.url, rough, 10 * SOL) == deposited(cli.url, smooth, 10 * SOL) > 0
    cli.ok("create-run", path, keypair=rough)
    assert cli.err == "nothing to do: no transaction was sent\n"
    if text is PLAIN:  # no mint stays behind
        cli.ok("pause", key.strip(), keypair=rough)
        cli.ok("close-run", key.strip(), keypair=rough)
        assert deposited(cli.url, rough, 10 * SOL) == 0


@both_cuts
def test_update_run_completes(
    cli: Cli, wallet: Path, monkeypatch: pytest.MonkeyPatch, run_file: Any, cut: Cut
) -> None:
    key = cli.ok("create-run", run_file(), "--paused", keypair=wallet).strip()
    changed = run_file(
        ("total_steps = 8", "total_steps = 9"),
        ("compression_topk = 4", "compression_topk = 5"),
        ("round_rate = 1.5", "round_rate = 2"),
        ('name = "Smoke"', f'name = "Other"\ndescription = "{"long " * 50}"'),
        ("fund = 20", "fund = 30"),
    )
    labels, _ = interrupted(cli, monkeypatch, cut, "update-run", key, changed, keypair=wallet)
    pieces = labels.count("write specification")
    assert pieces >= 2
    assert labels == [
        "describe run",
        "announce specification",
        *["write specification"] * pieces,
        "seal specification",
        "configure run",
        "set round rate",
        "fund the pool",
    ]
    shown = json.loads(cli.ok("show", key, "--json"))
    assert shown["config"]["total_steps"] == 9
    assert shown["spec_sealed"] is True
    assert json.loads(shown["spec"])["optimizer"]["Distro"]["compression_topk"] == 5
    assert json.loads(cli.ok("rewards", key, "--json"))["funded"] == 30_000
    again = json.loads(cli.ok("update-run", key, changed, "--json", keypair=wallet))
    assert (again["changes"], again["cost"]["transactions"]) == ([], 0)


@pytest.mark.slow
@both_cuts
def test_settle_and_close_run_complete_and_return_the_rent(
    cli: Cli, make_wallet: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, run_file: Any, cut: Cut
) -> None:
    owner = make_wallet("owner")
    members = [make_wallet(f"m{i}") for i in range(3)]
    path = run_file(("total_steps = 8", "total_steps = 1"), ("init_min_clients = 2", "init_min_clients = 3"))
    key = cli.ok("create-run", path, keypair=owner).strip()
    mint = json.loads(cli.ok("rewards", key, "--json"))["mint"]
    take_part(cli.url, key, members, [0, 1, 1])
    monkeypatch.setattr(settle, "MAX_PER_TRANSACTION", 1)

    labels, _ = interrupted(cli, monkeypatch, cut, "settle", key, keypair=owner)
    assert labels == ["settle slot 0", "settle slot 1", "settle slot 2"]
    cli.ok("settle", key, keypair=owner)
    assert cli.err == "nothing to do: no transaction was sent\n"
    earned = {m["wallet"]: m["earned"] for m in json.loads(cli.ok("rewards", key, "--json"))["members"]}
    assert sorted(earned.values()) == [375, 375, 750]

    labels, _ = interrupted(cli, monkeypatch, cut, "close-run", key, keypair=owner)
    assert [label.split()[0] for label in labels] == ["claim", "claim", "claim", "close"]
    for member in members:
        assert cli.ok("wallet", "balance", "--mint", mint, keypair=member).endswith(" tokens\n")
        balance = json.loads(cli.ok("wallet", "balance", "--mint", mint, "--json", keypair=member))
        assert balance["amount"] in (375, 750)
    left = json.loads(cli.ok("wallet", "balance", "--mint", mint, "--json", keypair=owner))["amount"]
    assert left == 20_000 - 1_500
    cli.ok("close-run", key, keypair=owner)
    assert cli.err == "nothing to do: no transaction was sent\n"
    # What stays: the mint, three claims, four token accounts. All of the run, its pool and vault came back.
    rent = {82: 1_461_600, 165: 2_039_280}
    stays = deposited(cli.url, owner, 10 * SOL) - rent[82] - 4 * rent[165]
    assert stays % 3 == 0
    assert 1_000_000 < stays // 3 < 2_000_000  # a claim
    for member in members:
        cli.ok("close-membership", _run_state(cli, key, member), keypair=member)
        claim_rent = stays // 3  # the owner paid it, its wallet gets it
        assert lamports(cli.url, member) == 10 * SOL - fees_paid(cli.url, member) + claim_rent


def _run_state(cli: Cli, key: str, member: Path) -> str:
    """As a member learns it: the refusal names its memberships of closed runs."""
    assert cli("close-membership", key, "--rpc", cli.url, keypair=member) == exit_codes.NOT_FOUND
    return cli.err.split("memberships ")[1].split(":")[0].strip()
