"""The launcher against the reference validator: the same programs, the same clients, the same summary.

Needs `solana-test-validator` on PATH; nothing else in the project does. Members are `psyche-chain join` processes, and
everything that they say is compared with the validator's transactions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey

from localnet.deploy import Match, Rpc, find_programs, verify
from psyche_chain.chain import ids
from psyche_chain.chain.state import Phase, RunState
from tests.e2e.ledger import Ledger, call, read_ledger
from tests.e2e.validator import VALIDATOR, run_validator
from tests.programs.borsh_idl import Idl

ROOT = Path(__file__).resolve().parents[2]


def python(module: str, *words: object, timeout: float) -> str:
    """Output of a command that must succeed, as a user would start it."""
    command = [sys.executable, "-m", module, *map(str, words)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PSYCHE_")}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert ended.returncode == 0, ended.stderr[-3000:] + ended.stdout[-1000:]
    return ended.stdout


def check_log(ledger: Ledger, state: RunState, summary: dict[str, Any]) -> None:
    """The log that the transactions give is the one on chain and the one that the members folded."""
    pairs = ledger.histories(state.spec_hash)
    assert len(pairs) >= summary["steps"] == 8
    assert [told for told, _ in pairs] == [computed for _, computed in pairs]
    assert pairs[-1][1] == state.history
    assert state.history.hex() == summary["chain"]["history"]
    trained = [event for event in ledger.named("RoundClosed") if event["trained"]]
    assert [event["step"] for event in trained] == list(range(8))

    phases = [event["to"] for event in ledger.named("PhaseChanged")]
    for phase in (Phase.WARMUP, Phase.ROUND_TRAIN, Phase.ROUND_WITNESS, Phase.COOLDOWN, Phase.FINISHED):
        assert phase in phases
    assert phases[-1] == Phase.FINISHED
    agreed = ledger.named("CheckpointAgreed")[-1]
    assert agreed["weights_hash"].hex() == summary["chain"]["weights_sha256"]
    assert ledger.named("CheckpointRecorded")[-1]["step"] == agreed["step"] == 8
    assert len(ledger.named("EpochStarted")) == summary["epochs"]


def check_duties(ledger: Ledger, summary: dict[str, Any]) -> None:
    """Each member did its duties with its own signature."""
    wallets = {member["wallet"] for member in summary["members"]}
    assert {str(event["wallet"]) for event in ledger.named("Joined")} == wallets
    for duty in ("join", "ready", "commit", "witness", "attest_checkpoint"):
        assert ledger.signers[duty] == wallets, duty
    assert ledger.signers["record_checkpoint"] <= wallets


def check_money(ledger: Ledger, url: str, run_state: Pubkey, summary: dict[str, Any]) -> None:
    """What rounds paid is what members earned, claimed and hold; with the vault it is what was funded."""
    treasurer = Idl(ROOT / "psyche_chain/programs/treasurer.json")
    data = Rpc(url).account(ids.pool_address(run_state))
    assert data is not None
    pool = treasurer.decode_account("Pool", data[2])
    members = summary["members"]
    claims = {str(event["wallet"]): event for event in ledger.named("Claimed")}
    assert {wallet: event["amount"] for wallet, event in claims.items()} == {
        member["wallet"]: member["claimed"] for member in members
    }
    assert all(event["still_owed"] == 0 for event in claims.values())
    paid = sum(event["paid"] for event in ledger.named("RoundClosed"))
    assert paid == sum(member["earned"] for member in members) == pool["paid"] > 0
    assert sum(event["moved"] for event in ledger.named("Settled")) == paid

    def tokens(account: Pubkey) -> int:
        return int(
            call(url, "getTokenAccountBalance", str(account), {"commitment": "confirmed"})["value"]["amount"]
        )

    def owned(wallet: str) -> int:
        query = (wallet, {"mint": str(pool["mint"])}, {"encoding": "jsonParsed", "commitment": "confirmed"})
        found = call(url, "getTokenAccountsByOwner", *query)["value"]
        return sum(int(one["account"]["data"]["parsed"]["info"]["tokenAmount"]["amount"]) for one in found)

    held = {member["wallet"]: owned(member["wallet"]) for member in members}
    assert held == {member["wallet"]: member["claimed"] for member in members}
    supply = int(
        call(url, "getTokenSupply", str(pool["mint"]), {"commitment": "confirmed"})["value"]["amount"]
    )
    assert tokens(pool["vault"]) + sum(held.values()) == summary["chain"]["funded"] == supply


@pytest.mark.slow
@pytest.mark.xdist_group("toolchain")
@pytest.mark.timeout(480)
@pytest.mark.skipif(VALIDATOR is None, reason="solana-test-validator is not on PATH")
def test_a_whole_run_on_the_reference_validator(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with run_validator(tmp_path) as url:
        line = ("run", ROOT / "config/smoke.toml", "--clients", 2, "--tiers", "0,1", "--headless")
        python("localnet.cli", *line, "--rpc", url, "--out", out, timeout=420)
        summary = json.loads((out / "summary.json").read_text())
        assert summary["problems"] == []
        assert summary["members"][0]["weights_sha256"] == summary["chain"]["weights_sha256"]

        rpc = Rpc(url)
        assert {one.match for one in verify(rpc, find_programs()).values()} == {Match.EQUAL}
        shown = rpc.account(Pubkey.from_string(summary["chain"]["run"]))
        assert shown is not None
        run = Idl(ROOT / "psyche_chain/programs/coordinator.json").decode_account("Run", shown[2])
        account = rpc.account(run["run_state"])
        rpc.close()
        assert account is not None
        state = RunState.from_account(account[2])
        ledger = read_ledger(url, run["run_state"])
        check_log(ledger, state, summary)
        check_duties(ledger, summary)
        check_money(ledger, url, run["run_state"], summary)
