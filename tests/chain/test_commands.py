"""Commands against the embedded chain: what they do, say, and exit with."""

import json
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from solders.instruction import Instruction
from solders.keypair import Keypair

from psyche_chain import __version__
from psyche_chain.chain.errors import RpcUnavailable
from psyche_chain.chain.sender import Receipt, Sender
from psyche_chain.chain.state import Phase
from psyche_chain.cli import exit_codes
from psyche_chain.wallet import load_wallet
from tests.chain.support import Cli

ROOT = Path(__file__).resolve().parents[2]
SMOKE = (ROOT / "config/smoke.toml").read_text()
NO_REWARDS = SMOKE[: SMOKE.index("[rewards]")]

pytestmark = pytest.mark.usefixtures("unresolved")


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """`config(text, old=new, ...)`: a file with replacements."""

    def write(text: str = SMOKE, *changes: tuple[str, str]) -> Path:
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "run.toml"
        path.write_text(text)
        return path

    return write


def address(wallet: Path) -> str:
    return str(load_wallet(wallet)[0].pubkey())


def test_create_run_with_rewards_does_everything(cli: Cli, wallet: Path, config: Any) -> None:
    key = cli.ok("create-run", config(), keypair=wallet).strip()
    assert "created mint" in cli.err
    shown = json.loads(cli.ok("show", key, "--json"))
    assert shown["run"]["creator"] == address(wallet)
    assert shown["run"]["authority"] == shown["pool"]["key"]
    assert shown["pool"]["authority"] == address(wallet)
    assert shown["status"]["phase"] == "WaitingForMembers"
    assert shown["config"]["pay_per_tier"] == [2, 1, 1, 1]
    assert (shown["next_round_rate"], shown["spec_sealed"]) == (1500, True)
    assert json.loads(shown["spec"])["optimizer"]["Distro"]["compression_topk"] == 4
    pay = json.loads(cli.ok("rewards", key, "--json"))
    assert (pay["funded"], pay["vault"], pay["paid"], pay["decimals"]) == (20_000, 20_000, 0, 3)


def test_create_run_again_changes_nothing(cli: Cli, wallet: Path, config: Any) -> None:
    first = json.loads(cli.ok("create-run", config(), "--json", keypair=wallet))
    nonce = json.loads(cli.ok("show", first["run"], "--json"))["nonce"]
    again = json.loads(cli.ok("create-run", config(), "--json", keypair=wallet))
    assert {**again, "cost": first["cost"]} == first
    assert again["cost"]["transactions"] == 0
    assert cli.err == ""
    assert json.loads(cli.ok("show", first["run"], "--json"))["nonce"] == nonce
    assert cli.ok("create-run", config(), keypair=wallet) == first["run"] + "\n"
    assert cli.err == "nothing to do: no transaction was sent\n"


@pytest.mark.parametrize("text", [SMOKE, NO_REWARDS], ids=["rewards", "plain"])
def test_create_run_goes_on_after_an_interruption_anywhere(
    cli: Cli, wallet: Path, config: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    send = Sender.send
    sent: list[str] = []

    async def one_more(
        self: Sender, instructions: Sequence[Instruction], signers: Sequence[Keypair] = (), **named: Any
    ) -> Receipt:
        if len(sent) == 1:
            raise RpcUnavailable("the line is cut")
        sent.append(named["label"])
        return await send(self, instructions, signers, **named)

    monkeypatch.setattr(Sender, "send", one_more)
    labels: list[str] = []
    for _ in range(20):
        sent.clear()
        status = cli("create-run", config(text), "--rpc", cli.url, keypair=wallet)
        labels += sent
        if status == 0:
            break
        assert status == exit_codes.CHAIN
    else:
        pytest.fail("it never ended")
    assert len(labels) == len(set(labels)) + labels.count("write specification") - 1
    full = json.loads(cli.ok("show", cli.out.strip(), "--json"))
    assert full["status"]["phase"] == "WaitingForMembers"
    assert len(json.loads(cli.ok("list-runs", "--json"))) >= 1


def test_create_run_applies_a_changed_file(cli: Cli, wallet: Path, config: Any) -> None:
    key = cli.ok("create-run", config(), "--paused", keypair=wallet).strip()
    changed = config(
        SMOKE,
        ("total_steps = 8", "total_steps = 9"),
        ("compression_topk = 4", "compression_topk = 5"),
        ("round_rate = 1.5", "round_rate = 2"),
        ('name = "Smoke"', 'name = "Other"\ndescription = "d"'),
        ("fund = 20", "fund = 30"),
    )
    assert cli.ok("create-run", changed, keypair=wallet).strip() == key
    shown = json.loads(cli.ok("show", key, "--json"))
    assert shown["config"]["total_steps"] == 9
    assert json.loads(shown["spec"])["optimizer"]["Distro"]["compression_topk"] == 5
    assert shown["next_round_rate"] == 2000
    assert (shown["run"]["name"], shown["run"]["description"]) == ("Other", "d")
    assert shown["status"]["phase"] == "WaitingForMembers"
    assert json.loads(cli.ok("rewards", key, "--json"))["funded"] == 30_000
    live = config(SMOKE, ("total_steps = 8", "total_steps = 10"))
    assert cli("create-run", live, "--rpc", cli.url, keypair=wallet) == exit_codes.PROGRAM
    assert "is live (WaitingForMembers)" in cli.err
    assert f"psyche-chain pause {key}" in cli.err


def test_create_run_with_another_shape_is_refused(cli: Cli, wallet: Path, config: Any) -> None:
    cli.ok("create-run", config(NO_REWARDS), keypair=wallet)
    assert cli("create-run", config(SMOKE), "--rpc", cli.url, keypair=wallet) == exit_codes.PROGRAM
    assert "exists already with no pool" in cli.err
    bigger = config(NO_REWARDS + "[join]\ncapacity = 20\n")
    assert cli("create-run", bigger, "--rpc", cli.url, keypair=wallet) == exit_codes.PROGRAM
    assert "16 slots" in cli.err


def test_longest_texts_and_largest_table_fit(cli: Cli, wallet: Path, config: Any) -> None:
    texts = f'run_id = "{"r" * 32}"\nname = "{"n" * 64}"\ndescription = "{"d" * 280}"'
    path = config(
        SMOKE + "[join]\ncapacity = 256\n",
        ('run_id = "smoke"\nname = "Smoke"', texts + f'\nmin_client_version = "1.2.3-{"a" * 26}"'),
    )
    key = cli.ok("create-run", path, keypair=wallet).strip()
    run = json.loads(cli.ok("show", key, "--json"))["run"]
    assert (run["run_id"], run["description"]) == ("r" * 32, "d" * 280)


def test_the_same_id_of_two_creators_is_two_runs(
    cli: Cli, make_wallet: Callable[..., Path], config: Any
) -> None:
    path = config(NO_REWARDS, ('run_id = "smoke"', 'run_id = "twins"'))
    keys = {cli.ok("create-run", path, keypair=make_wallet(n)).strip() for n in ("a", "b")}
    assert len(keys) == 2
    assert cli("status", "twins", "--rpc", cli.url) == exit_codes.NOT_FOUND
    assert "2 runs are called 'twins'" in cli.err
    assert all(key in cli.err for key in keys)


def test_pause_resume_and_rates(cli: Cli, wallet: Path, config: Any, make_wallet: Any) -> None:
    key = cli.ok("create-run", config(), keypair=wallet).strip()
    assert cli.ok("pause", key, keypair=wallet) == "Paused\n"
    assert cli.ok("pause", key, keypair=wallet) == "Paused\n"
    assert cli.ok("resume", key, keypair=wallet) == "WaitingForMembers\n"
    assert "2.25 per round" in cli.ok("set-rates", key, "2.25", keypair=wallet)
    assert "nothing was due" in cli.ok("tick", key, keypair=wallet)
    other = make_wallet("other")
    assert cli("pause", key, "--rpc", cli.url, keypair=other) == exit_codes.PROGRAM
    assert f"belongs to {address(wallet)}" in cli.err
    assert cli("set-rates", key, "1.00001", "--rpc", cli.url, keypair=wallet) == exit_codes.USAGE


def test_authorize_and_revoke(cli: Cli, wallet: Path, make_wallet: Any) -> None:
    grantee = address(make_wallet("member", sol=0))
    for _ in range(2):
        found = json.loads(cli.ok("authorize", grantee, "--max-weight", 3, "--json", keypair=wallet))
        assert (found["active"], found["max_weight"], found["scope"]) == (True, 3, "CoordinatorJoinRun")
    assert "inactive" in cli.ok("revoke", grantee, keypair=wallet)
    stranger = address(make_wallet("stranger", sol=0))
    assert cli("revoke", stranger, "--rpc", cli.url, keypair=wallet) == exit_codes.NOT_FOUND
    assert f"psyche-chain authorize {stranger}" in cli.err


def test_fund_and_close(cli: Cli, wallet: Path, config: Any) -> None:
    before = json.loads(cli.ok("wallet", "balance", "--json", keypair=wallet))["amount"]
    key = cli.ok("create-run", config(), keypair=wallet).strip()
    assert cli("fund", key, "5", "--rpc", cli.url, keypair=wallet) == exit_codes.NO_FUNDS
    assert "has 0 tokens" in cli.err
    assert "--mint" in cli.err
    assert "the vault holds 25" in cli.ok("fund", key, "5", "--mint", keypair=wallet)
    assert cli("close-run", key, "--rpc", cli.url, keypair=wallet) == exit_codes.PROGRAM
    assert "is live" in cli.err
    mint = json.loads(cli.ok("rewards", key, "--json"))["mint"]
    cli.ok("pause", key, keypair=wallet)
    cli.ok("close-run", key, keypair=wallet)
    assert cli.ok("wallet", "balance", "--mint", mint, keypair=wallet) == "25 tokens\n"
    after = json.loads(cli.ok("wallet", "balance", "--json", keypair=wallet))["amount"]
    assert before - after < 5_000_000  # the mint's and the token account's rent, and fees
    assert cli("status", key, "--rpc", cli.url) == exit_codes.NOT_FOUND


def test_wallet_without_funds_is_told_so(cli: Cli, make_wallet: Any, config: Any) -> None:
    for sol, text in ((0, "has no SOL"), (0.01, "0.009990000 SOL, 0.")):
        poor = make_wallet(f"poor{sol}", sol=sol)
        path = config(NO_REWARDS)
        assert cli("create-run", path, "--rpc", cli.url, keypair=poor) == exit_codes.NO_FUNDS
        assert text in cli.err
        assert address(poor) in cli.err
        assert "airdrop" in cli.err
        assert len(cli.err.strip().splitlines()) == 2


@pytest.mark.parametrize("command", ["status", "show", "rewards", "claim", "leave", "join", "pause", "tick"])
def test_unknown_run_names_list_runs(cli: Cli, wallet: Path, command: str) -> None:
    needs_key = command not in ("status", "show", "rewards")
    status = cli(command, "ghost", "--rpc", cli.url, keypair=wallet if needs_key else None)
    assert status == exit_codes.NOT_FOUND
    assert cli.out == ""
    assert "psyche-chain list-runs" in cli.err


def test_key_of_something_else_is_not_a_run(cli: Cli, wallet: Path) -> None:
    assert cli("status", address(wallet), "--rpc", cli.url) == exit_codes.NOT_FOUND


def test_another_account_of_the_coordinator_is_not_a_run(cli: Cli, wallet: Path, config: Any) -> None:
    made = json.loads(cli.ok("create-run", config(NO_REWARDS), "--json", keypair=wallet))
    assert cli("status", made["run_state"], "--rpc", cli.url) == exit_codes.NOT_FOUND
    assert "is an account of the coordinator, but not a run" in cli.err


def test_joining_a_finished_run_ends_at_once_and_says_so(
    cli: Cli, wallet: Path, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = cli.ok("create-run", config(NO_REWARDS), keypair=wallet).strip()
    monkeypatch.setattr("psyche_chain.chain.state.RunState.phase", Phase.FINISHED)
    assert cli("join", key, "--rpc", cli.url, keypair=wallet) == exit_codes.OK
    assert "is finished at step 0: there is nothing left to take part in" in cli.err


def test_too_old_client_is_refused(
    cli: Cli, wallet: Path, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(NO_REWARDS, ('name = "Smoke"', 'name = "Smoke"\nmin_client_version = "99.0.0"'))
    key = cli.ok("create-run", path, keypair=wallet).strip()
    assert cli("join", key, "--rpc", cli.url, keypair=wallet) == exit_codes.VERSION
    assert f"needs client 99.0.0 or newer, this is {__version__}" in cli.err


def test_unreachable_endpoint_is_told_without_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyche_chain.chain.rpc.DEFAULT_DEADLINE_S", 1.0)
    assert cli("list-runs", "--rpc", "http://127.0.0.1:9") == exit_codes.CHAIN
    assert "no RPC endpoint answered" in cli.err
    assert "--rpc" in cli.err


def test_wrong_usage(cli: Cli, wallet: Path) -> None:
    assert cli("status") == exit_codes.USAGE
    for url in ("ws://x", "http://", "http://h:99999", "http://a b", "http://[::1"):
        assert cli("status", "x", "--rpc", url) == exit_codes.USAGE
        assert "is not an http:// or https:// address" in cli.err
    for listen in ("foo", "/ip4/127.0.0.1/udp/1", "/ip4/127.0.0.300/tcp/1", "/ip4/127.0.0.1/tcp/65536"):
        assert cli("join", "x", "--listen", listen, "--rpc", cli.url, keypair=wallet) == exit_codes.USAGE
        assert f"--listen: {listen!r} is not an address" in cli.err
    assert cli("wallet", "airdrop", "0", "--rpc", cli.url, keypair=wallet) == exit_codes.USAGE
    assert cli("join", "x", "--tier", "3") == exit_codes.USAGE
    assert cli("authorize", "nonsense", "--rpc", cli.url, keypair=wallet) == exit_codes.USAGE
    assert cli("nonsense") == exit_codes.USAGE


def test_key_files_are_guarded(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    made = cli("wallet", "new", keypair=path)
    assert made == exit_codes.OK
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    made_address = cli.out.strip()
    assert cli("wallet", "new", keypair=path) == exit_codes.CONFIG
    assert "not overwritten" in cli.err
    assert cli("wallet", "address", keypair=path) == exit_codes.OK
    assert cli.out.strip() == made_address
    assert cli.err == ""
    path.chmod(0o644)
    cli("wallet", "address", keypair=path)
    assert "others can read the wallet" in cli.err
    secret = path.read_text()
    numbers = json.loads(secret)
    other_half = json.dumps([*numbers[:63], numbers[63] ^ 1])
    for text in ("[1, 2, 3]", "nonsense", secret[:-20], "64", "99999999999", "[" * 10_000, other_half):
        path.write_text(text)
        assert cli("wallet", "address", keypair=path) == exit_codes.CONFIG
        assert secret[1:20] not in cli.err + cli.out
    assert "public half" in cli.err
    assert cli("wallet", "address", keypair=tmp_path / "none.json") == exit_codes.CONFIG
    assert "psyche-chain wallet new" in cli.err


def test_airdrop(cli: Cli, make_wallet: Any) -> None:
    assert cli.ok("wallet", "airdrop", "1.5", keypair=make_wallet("poor", sol=0)) == "1.5 SOL\n"


def test_validate_config(cli: Cli, config: Any) -> None:
    assert cli("validate-config", config()) == exit_codes.OK
    assert cli("validate-config", config(), "--json") == exit_codes.OK
    assert json.loads(cli.out)["run_id"] == "smoke"
    assert cli("validate-config", config(SMOKE, ("total_steps", "totl_steps"))) == exit_codes.CONFIG
    assert cli.out == ""
    assert "did you mean total_steps?" in cli.err


def test_help_has_examples(cli: Cli) -> None:
    for command in ("create-run", "join", "status", "fund", "authorize", "wallet airdrop"):
        assert cli(*command.split(), "--help") == exit_codes.OK
        assert f"Example: psyche-chain {command}" in cli.out


def test_version_is_the_packages(cli: Cli) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert cli("--version") == exit_codes.OK
    assert cli.out.strip() == project["version"] == __version__
