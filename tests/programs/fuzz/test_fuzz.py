"""A bounded, seeded part of the fuzzing, and proof that the fuzzer notices what it is for."""

import json
from pathlib import Path

import pytest
from solders.account import Account

from tests.programs.fuzz import __main__ as command
from tests.programs.fuzz import report, settlement
from tests.programs.fuzz.check import Broken
from tests.programs.fuzz.episode import Episode, Tally, explore, run
from tests.programs.fuzz.model import HANDLERS, IDLS
from tests.programs.fuzz.shrink import load, save, shrink
from tests.programs.fuzz.world import World

REPLAYS = Path(__file__).parent / "replays"


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.mark.parametrize("seed", ["fast-1", "fast-2", "fast-3", "fast-4"])
def test_chain_does_what_the_model_says(world, seed):
    failure, tally = explore(seed, 700, world=world)
    assert failure is None, failure.detail
    assert tally.transactions == 700
    succeeded = {ix for ix, _, outcome in tally.cells if outcome == "ok"}
    assert {"coordinator.join", "coordinator.commit", "coordinator.witness"} <= succeeded


def test_same_seed_makes_the_same_episode(world):
    first, second = (explore("again", 150, world=world)[1] for _ in range(2))
    assert first.cells == second.cells


def forget_the_carry(pay):
    def forgetful(log, mask):
        pay(log, mask)
        log.pay_carry = 0

    return forgetful


def count_the_own_vote(accepted):
    """A witness's own vote counts for its own slot, as in the original system."""

    def biased(r):
        honest = accepted(r)
        return honest if honest is None else honest | r.committed & r.attested

    return biased


@pytest.mark.parametrize(
    ("name", "mistake", "seeds"),
    [("pay", forget_the_carry, range(11, 60)), ("accepted", count_the_own_vote, range(4, 60))],
)
def test_mistake_is_found_shrunk_and_replayed(world, monkeypatch, tmp_path, name, mistake, seeds):
    with monkeypatch.context() as patch:
        patch.setattr(settlement, name, mistake(getattr(settlement, name)))
        found = (explore(f"bite-{n}", 400, world=world)[0] for n in seeds)
        failure = next(f for f in found if f is not None)
        small = shrink(failure, max_replays=60, world=world)
        assert small.kind == failure.kind
        assert len(small.items) < len(failure.items)
        path = tmp_path / "failure.json"
        save(small, path)
        assert load(path) == small.items
        again, _ = run(load(path), world=world)
        assert again is not None
        assert (again.kind, again.detail) == (small.kind, small.detail)
    fixed, tally = run(load(path), world=world)
    assert fixed is None, "without the mistake nothing is broken"
    assert tally.transactions > 0


def test_chain_that_moves_money_by_itself_is_noticed(world):
    """Lamports that no transaction moved are found by the deep check."""
    episode = Episode(world=world)
    key = episode.model.keys.key("w3")
    world.svm.set_account(key, Account(1, b"", episode.model.keys.key("SYSTEM")))
    with pytest.raises(Broken, match="w3: chain 1"):
        episode.check()


def test_command_reports_and_replays(tmp_path, capsys):
    out = tmp_path / "fuzz"
    common = ["--transactions", "120", "--seed", "7", "--workers", "1", "--out", str(out)]
    assert command.main(common) == 0
    assert "120 transactions" in capsys.readouterr().out
    assert "coordinator." in (out / "coverage.txt").read_text()
    file = tmp_path / "nothing.json"
    file.write_text(json.dumps({"items": [{"clock": [5, 1]}]}))
    assert command.main(["--replay", str(file)]) == 0


def test_every_instruction_has_a_model():
    every = {f"{program}.{ix}" for program, idl in IDLS.items() for ix in idl.instructions}
    assert every <= set(HANDLERS)


def test_report_knows_only_instructions_and_errors_that_exist():
    every = {f"{program}.{ix}" for program, idl in IDLS.items() for ix in idl.instructions}
    listed = {".".join(ix.split(".")[:2]) for ix, _ in report.missed(Tally())}
    assert listed == every
    errors = {name for idl in IDLS.values() for name in idl.errors.values()}
    assert not set(report.OUT_OF_REACH) - errors - {"WrongInstructions"}


def test_token_account_whose_rent_is_given_needs_no_payers_signature() -> None:
    """Found by the fuzzer: only the transfer of the rent asks for it, so who gave it before pays for everybody."""
    at = {"payer": "rich", "account": "ata/m0/w6", "owner": "w6", "mint": "m0"}
    unsigned = {"payer": "w7", "ops": [{"ix": "ata.create", "acc": at, "args": {}, "unsigned": ["payer"]}]}
    given = {"from": "x0", "to": "ata/m0/w6"}
    gift = {
        "payer": "rich",
        "ops": [{"ix": "system.transfer", "acc": given, "args": {"lamports": 5_000_000}}],
    }
    for items in ([unsigned], [gift, unsigned], [gift, unsigned, unsigned]):
        failure, _ = run(items)
        assert failure is None, failure


@pytest.mark.parametrize("path", sorted(REPLAYS.glob("*.json")), ids=lambda path: path.stem)
def test_what_the_model_once_had_wrong(path: Path) -> None:
    """Found by the fuzzer, shrunk by it, and right on chain."""
    assert command.replay(path) == 0
