"""What commands say they cost is what the wallet's balance lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey

from psyche_chain.chain import queries
from psyche_chain.chain.ids import run_address
from tests.chain.faults import Cut, FaultInjectingSender
from tests.chain.members import join_all
from tests.chain.money import address, ask, lamports
from tests.chain.support import Cli

ROOT = Path(__file__).resolve().parents[2]
SMOKE = (ROOT / "config/smoke.toml").read_text()

pytestmark = pytest.mark.usefixtures("unresolved")


def test_every_command_tells_exactly_what_it_took(cli: Cli, make_wallet: Any, tmp_path: Path) -> None:
    boss, member = make_wallet("boss"), make_wallet("member")
    path = tmp_path / "run.toml"
    path.write_text(SMOKE + '[join]\nauthority = "creator"\n')
    changed = tmp_path / "changed.toml"
    changed.write_text(path.read_text().replace("compression_topk = 4", "compression_topk = 5"))

    def told(*line: object, keypair: Path = boss) -> dict[str, Any]:
        before = lamports(cli.url, keypair)
        cost: dict[str, Any] = json.loads(cli.ok(*line, "--json", keypair=keypair))["cost"]
        assert before - lamports(cli.url, keypair) == cost["fees_lamports"] + cost["rent_lamports"], line
        assert cost["transactions"] == len(set(cost["signatures"]))
        assert cost["fees_lamports"] >= 5_000 * cost["transactions"]
        return cost

    assert told("create-run", path)["rent_lamports"] > 10_000_000
    run = str(run_address(Pubkey.from_string(address(boss)), "smoke"))
    assert told("pause", run)["transactions"] == 1
    assert told("pause", run)["transactions"] == 0
    assert told("update-run", run, changed)["transactions"] >= 3
    told("resume", run)
    told("set-rates", run, "2")
    told("authorize", address(member))
    join_all(cli.url, run, [member], [0])
    told("settle", run)
    told("fund", run, "1", "--mint")
    told("tick", run)
    told("leave", run, keypair=member)
    told("revoke", address(member))
    assert told("close-authorization", address(member))["rent_lamports"] < 0
    told("pause", run)
    assert told("close-run", run)["rent_lamports"] < -10_000_000
    state = cli("close-membership", run, "--rpc", cli.url, keypair=member)
    assert state != 0
    named = cli.err.split("memberships ")[1].split(":")[0].strip()
    assert told("close-membership", named, keypair=member)["rent_lamports"] < 0


def test_cost_is_shown_in_sol_and_lamports(cli: Cli, wallet: Path, make_wallet: Any) -> None:
    other = address(make_wallet("other", sol=0))
    before = lamports(cli.url, wallet)
    cli.ok("authorize", other, keypair=wallet)
    rent = before - lamports(cli.url, wallet) - 5_000
    assert cli.err == (
        f"fees  0.000005 SOL (5000 lamports) for 1 transaction\nrent  {rent / 1e9:.9f}".rstrip("0")
        + f" SOL ({rent} lamports) put into accounts\n"
    )


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        (("--priority-fee", "50000"), 100, 10_000),
        (("--priority-fee", "50000", "--max-fee", "7"), 1, 7),
        (("--priority-fee", "0"), 0, 0),
        (("--priority-fee", "999999999999", "--max-fee", "0"), 0, 0),
    ],
)
def test_priority_fee_is_what_was_asked_for_up_to_the_cap(
    cli: Cli, wallet: Path, make_wallet: Any, options: tuple[str, ...], least: int, most: int
) -> None:
    other = address(make_wallet("other", sol=0))
    before = lamports(cli.url, wallet)
    cost = json.loads(cli.ok("authorize", other, *options, "--json", keypair=wallet))["cost"]
    assert least <= cost["priority_fees_lamports"] <= most
    assert cost["fees_lamports"] == 5_000 + cost["priority_fees_lamports"]
    assert before - lamports(cli.url, wallet) == cost["fees_lamports"] + cost["rent_lamports"]
    found = ask(cli.url, "getTransaction", cost["signatures"][0], {"commitment": "confirmed"})
    assert found["meta"]["fee"] == cost["fees_lamports"]  # type: ignore[index]
    if cost["priority_fees_lamports"]:
        cli.ok("revoke", other, *options, keypair=wallet)
        assert "of them priority) for 1 transaction" in cli.err


def test_priority_fee_follows_what_others_pay(
    cli: Cli, wallet: Path, make_wallet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = address(make_wallet("other", sol=0))

    async def busy(*args: object) -> list[int]:
        return [20_000] * 150

    monkeypatch.setattr(queries, "recent_fees", busy)
    cost = json.loads(cli.ok("authorize", other, "--json", keypair=wallet))["cost"]
    assert 0 < cost["priority_fees_lamports"] < 100_000
    capped = json.loads(cli.ok("revoke", other, "--max-fee", "3", "--json", keypair=wallet))["cost"]
    assert 0 < capped["priority_fees_lamports"] <= 3


def test_a_command_that_fails_midway_tells_what_it_took(
    cli: Cli, wallet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(SMOKE)
    before = lamports(cli.url, wallet)
    FaultInjectingSender(monkeypatch, Cut.BEFORE_THE_NEXT)
    assert cli("create-run", path, "--rpc", cli.url, keypair=wallet) == 6
    fees, rent = (
        int(line.split("(")[1].split()[0]) for line in cli.err.splitlines() if line[:4] in ("fees", "rent")
    )
    assert before - lamports(cli.url, wallet) == fees + rent
    assert cli.err.index("rent") < cli.err.index("error:")
