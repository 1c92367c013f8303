"""Administration on the embedded chain: what each command changes, refuses and says."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair

from psyche_chain.admin.report import ShowReport
from psyche_chain.chain.state import Phase
from psyche_chain.cli import exit_codes
from psyche_chain.config import RunConfig
from tests.chain.members import join_all, take_part
from tests.chain.money import address
from tests.chain.support import Cli

ROOT = Path(__file__).resolve().parents[2]
SMOKE = (ROOT / "config/smoke.toml").read_text()
PLAIN = SMOKE[: SMOKE.index("[rewards]")]
ONE_STEP = ("total_steps = 8", "total_steps = 1")
NOTHING = "nothing to do: no transaction was sent\n"

pytestmark = pytest.mark.usefixtures("unresolved")


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


@pytest.mark.parametrize("text", [SMOKE, PLAIN], ids=["pool", "plain"])
def test_update_run_sends_only_what_differs(cli: Cli, wallet: Path, run_file: Any, text: str) -> None:
    key = cli.ok("create-run", run_file(text=text), keypair=wallet).strip()
    renamed = run_file(('name = "Smoke"', 'name = "New"'), text=text)
    done = json.loads(cli.ok("update-run", key, renamed, "--json", keypair=wallet))
    assert done["changes"] == [{"key": "name", "found": "Smoke", "wanted": "New"}]
    assert (done["sent"], done["cost"]["transactions"]) == (True, 1)  # a live run takes texts
    rules = run_file(('name = "Smoke"', 'name = "New"'), ("total_steps = 8", "total_steps = 9"), text=text)
    shown = cli.ok("update-run", key, rules, "--dry-run", keypair=wallet)
    assert shown == "config.total_steps: 8 -> 9\n"
    assert "dry run: nothing was sent; run smoke is live" in cli.err
    assert cli("update-run", key, rules, "--rpc", cli.url, keypair=wallet) == exit_codes.PROGRAM
    assert f"psyche-chain pause {key}" in cli.err
    cli.ok("pause", key, keypair=wallet)
    assert cli.ok("update-run", key, rules, "--dry-run", keypair=wallet) == shown
    assert cli.err == "dry run: nothing was sent\n"
    assert json.loads(cli.ok("update-run", key, rules, "--json", keypair=wallet))["cost"]["transactions"] == 1
    assert json.loads(cli.ok("show", key, "--json"))["config"]["total_steps"] == 9
    assert "is what" in cli.ok("update-run", key, rules, keypair=wallet)
    assert cli.err == NOTHING


def test_update_run_refuses_what_can_never_change(cli: Cli, wallet: Path, run_file: Any) -> None:
    key = cli.ok("create-run", run_file(), "--paused", keypair=wallet).strip()
    for path, text in (
        (run_file(('run_id = "smoke"', 'run_id = "other"')), "the file is of run 'other'"),
        (run_file(text=PLAIN), "a pool, the file has no [rewards]"),
        (run_file(("decimals = 3", "decimals = 4")), "a mint of 3 decimals"),
        (run_file(text=SMOKE + "[join]\ncapacity = 17\n"), "16 slots, join.capacity = 17"),
        (run_file(("decimals = 3", f'mint = "{address(wallet)}"')), "a pool of mint"),
    ):
        assert cli("update-run", key, path, "--rpc", cli.url, keypair=wallet) == exit_codes.PROGRAM
        assert text in cli.err


def test_update_run_asks_the_program_before_it_touches_the_specification(
    cli: Cli, wallet: Path, run_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = cli.ok("create-run", run_file(), "--paused", keypair=wallet).strip()
    changed = run_file(
        ("compression_topk = 4", "compression_topk = 5"), ("total_steps = 8", "total_steps = 9")
    )
    good = RunConfig.chain_config
    monkeypatch.setattr(
        RunConfig, "chain_config", lambda self: dataclasses.replace(good(self), min_clients=9)
    )
    assert cli("update-run", key, changed, "--rpc", cli.url, keypair=wallet) == exit_codes.PROGRAM
    assert "BadMinClients" in cli.err
    assert json.loads(cli.ok("show", key, "--json"))["spec_sealed"] is True


@pytest.mark.parametrize("text", [SMOKE, PLAIN], ids=["pool", "plain"])
def test_set_authority_hands_everything_over(cli: Cli, make_wallet: Any, run_file: Any, text: str) -> None:
    old, new = make_wallet("old"), make_wallet("new")
    path = run_file(text=text)
    key = cli.ok("create-run", path, keypair=old).strip()
    line = ("set-authority", key, address(new))
    assert cli(*line, "--rpc", cli.url, keypair=old) == exit_codes.USAGE
    assert "add --yes" in cli.err
    assert f"belongs to {address(new)}" in cli.ok(*line, "--yes", keypair=old)
    assert f"belongs to {address(new)}" in cli.ok(*line, "--yes", keypair=old)
    assert cli.err == NOTHING
    assert cli("pause", key, "--rpc", cli.url, keypair=old) == exit_codes.PROGRAM
    assert f"belongs to {address(new)}, this wallet is {address(old)}" in cli.err
    assert f"set-authority {key} {address(old)}" in cli.err
    assert cli.ok("pause", key, keypair=new) == "Paused\n"
    changed = run_file(("total_steps = 8", "total_steps = 9"), text=text)
    cli.ok("update-run", key, changed, keypair=new)
    cli.ok("close-run", key, keypair=new)


def test_set_authority_refuses_an_address_without_a_key(cli: Cli, wallet: Path, run_file: Any) -> None:
    key = cli.ok("create-run", run_file(), keypair=wallet).strip()
    pool = json.loads(cli.ok("show", key, "--json"))["pool"]["key"]
    assert cli("set-authority", key, pool, "--yes", "--rpc", cli.url, keypair=wallet) == exit_codes.USAGE
    assert "no key can sign for it" in cli.err


def test_authorizations_keep_limits_that_are_not_named(cli: Cli, wallet: Path, make_wallet: Any) -> None:
    member = make_wallet("member")
    line = ("authorize", address(member))
    for options, limits in (
        ((), (1, 0)),
        (("--max-weight", 5), (5, 0)),
        (("--min-tier", 1), (5, 1)),
        ((), (5, 1)),
    ):
        found = json.loads(cli.ok(*line, *options, "--json", keypair=wallet))
        assert (found["max_weight"], found["min_tier"], found["active"]) == (*limits, True)
    assert found["cost"]["transactions"] == 0
    many = [str(Keypair().pubkey()) for _ in range(45)]
    adds = [word for key in many for word in ("--add", key)]
    given = json.loads(cli.ok("delegate", address(wallet), *adds, "--json", keypair=member))
    assert sorted(given["delegates"]) == sorted(many)
    assert given["cost"]["transactions"] == 3
    rest = ("--clear", "--add", many[0])
    assert (
        json.loads(cli.ok("delegate", address(wallet), *rest, "--json", keypair=member))["delegates"]
        == many[:1]
    )
    cli.ok("delegate", address(wallet), *rest, keypair=member)
    assert cli.err == NOTHING
    listed = json.loads(cli.ok("list-authorizations", "--json", keypair=wallet))
    assert [(a["grantor"], a["grantee"]) for a in listed] == [(address(wallet), address(member))]
    assert json.loads(cli.ok("list-authorizations", "--to", address(member), "--json")) == listed
    assert json.loads(cli.ok("list-authorizations", "--by", address(member), "--json")) == []


def test_close_authorization_returns_the_rent(cli: Cli, wallet: Path, make_wallet: Any) -> None:
    member = address(make_wallet("member"))
    rent = json.loads(cli.ok("authorize", member, "--json", keypair=wallet))["cost"]["rent_lamports"]
    assert rent > 0
    line = ("close-authorization", member)
    assert cli(*line, "--rpc", cli.url, keypair=wallet) == exit_codes.PROGRAM
    assert f"psyche-chain revoke {member}" in cli.err
    cli.ok("revoke", member, keypair=wallet)
    assert json.loads(cli.ok(*line, "--json", keypair=wallet))["cost"]["rent_lamports"] == -rent
    cli.ok(*line, keypair=wallet)
    assert cli.err == NOTHING
    assert (
        cli("close-authorization", address(wallet), "--rpc", cli.url, keypair=wallet) == exit_codes.NOT_FOUND
    )


def test_evict_puts_out_who_may_not_join_any_more(cli: Cli, make_wallet: Any, run_file: Any) -> None:
    boss, kept, gone, anybody = (make_wallet(n) for n in ("boss", "kept", "gone", "anybody"))
    tail = '\n[join]\nauthority = "creator"\ncapacity = 4\n'
    key = cli.ok("create-run", run_file(text=PLAIN + tail), keypair=boss).strip()
    for member in (kept, gone):
        cli.ok("authorize", address(member), keypair=boss)
    join_all(cli.url, key, [kept, gone], [0, 1])
    assert cli.ok("evict", key, keypair=anybody) == "nobody was evicted\n"
    assert cli("evict", key, address(kept), "--rpc", cli.url, keypair=anybody) == exit_codes.PROGRAM
    assert "StillAuthorized" in cli.err
    assert cli("evict", key, address(boss), "--rpc", cli.url, keypair=anybody) == exit_codes.NOT_FOUND
    cli.ok("revoke", address(gone), keypair=boss)
    done = json.loads(cli.ok("evict", key, "--json", keypair=anybody))
    assert (done["evicted"], done["kept"]) == ([address(gone)], 1)
    for line in (("evict", key), ("evict", key, address(gone))):
        assert cli.ok(*line, keypair=anybody) == "nobody was evicted\n"
        assert cli.err == NOTHING
    states = {s["wallet"]: s["state"] for s in json.loads(cli.ok("status", key, "--json"))["slots"]}
    assert states[address(gone)] == "departed"
    assert states[address(kept)] != "departed"
    assert cli("close-membership", key, "--rpc", cli.url, keypair=kept) == exit_codes.PROGRAM
    assert "MembershipInUse" in cli.err


@pytest.mark.slow
def test_a_pool_outlives_its_run_until_everybody_is_paid(cli: Cli, make_wallet: Any, run_file: Any) -> None:
    owner, one, two = (make_wallet(n) for n in ("owner", "one", "two"))
    path = run_file(ONE_STEP, ("fund = 20\n", ""), ('run_id = "smoke"', 'run_id = "outlived"'))
    key = cli.ok("create-run", path, keypair=owner).strip()
    take_part(cli.url, key, [one, two], [0, 1])
    mine = json.loads(cli.ok("claim", key, "--json", keypair=one))
    assert (mine["claimed"], mine["still_owed"], mine["signature"]) == (0, 1000, None)
    cli.ok("fund", key, "0.6", "--mint", keypair=owner)
    everybody = json.loads(cli.ok("claim", key, "--all", "--json", keypair=two))
    assert [(c["claimed"], c["still_owed"]) for c in everybody["claims"]] == [(600, 400)]
    assert cli("close-run", key, "--rpc", cli.url, keypair=owner) == exit_codes.USAGE
    assert "Members are owed 0.9 tokens and the vault is empty" in cli.err
    cli.ok("fund", key, "2", "--mint", keypair=owner)
    done = json.loads(cli.ok("close-run", "outlived", "--no-claims", "--json", keypair=owner))
    assert (done["run_closed"], done["pool_closed"], done["unpaid"]) == (True, False, 900)
    assert cli("status", key, "--rpc", cli.url) == exit_codes.NOT_FOUND
    again = cli.ok("close-run", "outlived", "--no-claims", keypair=owner)
    assert "stays: members are owed 0.9 tokens" in again
    assert cli.err == NOTHING
    assert cli("close-membership", "outlived", "--rpc", cli.url, keypair=one) == exit_codes.PROGRAM
    assert "which would be lost" in cli.err
    assert cli.ok("claim", "outlived", keypair=one) == "claimed 0.4 tokens\n"  # by the id, as a member
    assert cli.ok("claim", done["pool"], "--for", address(two), keypair=owner) == "claimed 0.5 tokens\n"
    owed = {m["wallet"]: m["open"] for m in json.loads(cli.ok("rewards", key, "--json"))["members"]}
    assert owed == {address(one): 0, address(two): 0}
    assert json.loads(cli.ok("close-run", "outlived", "--json", keypair=owner))["pool_closed"] is True
    for name in ("outlived", key):
        cli.ok("close-run", name, keypair=owner)
        assert cli.err == NOTHING
    assert cli("close-run", "never-was", "--rpc", cli.url, keypair=owner) == exit_codes.NOT_FOUND


def test_show_json_has_the_documented_shape(cli: Cli, wallet: Path, run_file: Any) -> None:
    for text in (SMOKE, PLAIN):
        path = run_file(('run_id = "smoke"', f'run_id = "shape-{len(text)}"'), text=text)
        key = cli.ok("create-run", path, "--paused", keypair=wallet).strip()
        shown = json.loads(cli.ok("show", key, "--json"))
        assert ShowReport.model_validate(shown).model_dump() == shown
        assert shown["schema_version"] == 1
        assert (shown["pool"] is None) == (text is PLAIN)


def test_doctor_says_what_is_there(cli: Cli, wallet: Path, tmp_path: Path) -> None:
    facts = json.loads(cli.ok("doctor", "--json", keypair=wallet))
    assert {p["name"]: p["state"] for p in facts["programs"]} == dict.fromkeys(
        ("coordinator", "authorizer", "treasurer"), "ok"
    )
    assert facts["cluster"] == "private cluster"
    assert facts["wallet"]["lamports"] == 10 * 10**9
    assert cli("doctor", "--rpc", cli.url, keypair=tmp_path / "none.json") == exit_codes.CONFIG
    assert "there is no wallet at" in cli.err


def test_phases_are_named_as_the_schema_says() -> None:
    text = ShowReport.model_fields["status"].annotation.model_fields["phase"].description  # type: ignore[union-attr]
    assert text is not None
    for name in text.removesuffix(", ...").split(", "):
        assert name in {p.label for p in Phase}
