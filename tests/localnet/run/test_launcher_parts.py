"""The launcher's parts that need no chain: plans, events, kills, the arithmetic of the summary."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localnet.run.killer import schedule
from localnet.run.plan import MARKER, RunPlan, parse_tiers, prepare_folder
from localnet.run.plot import bytes_per_param_step, plot_run
from localnet.run.progress import EventTail, MemberProgress
from localnet.run.summary import accepted_rounds, expected_pay
from localnet.run.view import ChainProgress, View, sparkline
from psyche_chain.cli import exit_codes
from psyche_chain.config import load_config
from psyche_chain.errors import ConfigError
from psyche_train.records import Accepted, RoundRecord

SMOKE = Path(__file__).resolve().parents[3] / "config" / "smoke.toml"


def record(number: int, accepted: list[tuple[int, int, int]]) -> RoundRecord:
    """A trained round in which these (slot, tier, weight) were accepted."""
    bits = bytearray(32)
    for slot, _tier, _weight in accepted:
        bits[slot // 8] |= 1 << slot % 8
    return RoundRecord(
        epoch=1,
        number=number,
        step=number - 1,
        trained=True,
        seed=bytes(32),
        data_index=0,
        samples=8,
        assigned=bytes(bits),
        spec_hash=bytes(32),
        accepted=tuple(Accepted(slot, tier, weight, bytes(32)) for slot, tier, weight in accepted),
    )


@pytest.mark.parametrize(
    ("text", "clients", "named"), [("0,1", 3, "2 members"), ("0,x,1", 3, "0,x,1"), (None, 0, "1 to 64")]
)
def test_tiers_that_do_not_fit_are_refused_with_a_sentence(
    text: str | None, clients: int, named: str
) -> None:
    with pytest.raises(ConfigError) as error:
        parse_tiers(text, clients)
    assert named in error.value.message
    assert error.value.exit_code == exit_codes.USAGE


def test_tiers_default_to_full_width() -> None:
    assert parse_tiers(None, 2) == (0, 0)
    assert parse_tiers("0,1,1", 3) == (0, 1, 1)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="something else"):
        prepare_folder(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_folder_of_an_earlier_run_is_made_anew(tmp_path: Path) -> None:
    out = tmp_path / "run"
    prepare_folder(out)
    (out / "old").write_text("x")
    prepare_folder(out)
    assert [p.name for p in out.iterdir()] == [MARKER]


def test_tail_reads_whole_lines_once_and_passes_over_torn_ones(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = EventTail(path)
    assert tail.read() == []
    path.write_text('{"event": "a"}\n{"event": "to')
    assert tail.read() == [{"event": "a"}]
    with path.open("a") as file:
        file.write('rn\n[1]\n{"event": "b"}\n')
    assert tail.read() == [{"event": "b"}]
    assert tail.read() == []


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["event", "slot", "step", "loss", "path"]), st.none() | st.text())
    )
)
def test_progress_never_fails_on_odd_events(events: list[dict[str, object]]) -> None:
    member = MemberProgress(0, 0, "w")
    for event in events:
        member.apply(event)
    assert member.losses == {}


def test_progress_keeps_losses_by_step() -> None:
    member = MemberProgress(0, 1, "w")
    for step, loss in ((0, 5.5), (1, 5.0)):
        member.apply({"event": "train", "step": step, "loss": loss, "bytes": 30, "parameters": 10, "slot": 2})
    member.apply({"event": "val", "step": 2, "loss": 4.5})
    assert (member.loss, member.val_loss, member.slot) == (5.0, 4.5, 2)
    assert bytes_per_param_step([member]) == 3.0


def test_kills_repeat_for_a_seed_and_differ_between_seeds() -> None:
    def first(seed: int) -> list[object]:
        kills = schedule(seed=seed, num_members=3, num_killed=1, every_s=20)
        return list(itertools.islice(kills, 5))

    assert first(1) == first(1)
    assert first(1) != first(2)
    for period, kill in enumerate(schedule(seed=3, num_members=3, num_killed=2, every_s=20)):
        assert 20 * period <= kill.at_s < kill.restart_at_s < 20 * (period + 1)
        assert len(set(kill.members)) == 2
        if period == 50:
            break


def test_more_victims_than_members_are_refused() -> None:
    plan = RunPlan(
        config=load_config(SMOKE), config_path=SMOKE, tiers=(0, 1), out=Path("unused"), kill_random=3
    )
    with pytest.raises(ConfigError, match="--kill-random 3: allowed are 0 to 2"):
        plan.check()
    with pytest.raises(ValueError, match="1 to 3"):
        next(schedule(seed=0, num_members=3, num_killed=4, every_s=20))


@given(
    st.lists(
        st.dictionaries(st.integers(0, 7), st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=8),
        max_size=30,
    ),
    st.integers(0, 10**9),
)
def test_expected_pay_hands_out_every_rate_but_the_last_remainder(
    rounds: list[dict[int, tuple[int, int]]], rate: int
) -> None:
    records = [
        record(i + 1, [(slot, *kind) for slot, kind in sorted(accepted.items())])
        for i, accepted in enumerate(rounds)
    ]
    earned = expected_pay(records, rate, (4, 2, 1, 1))
    paid_rounds = sum(1 for r in records if r.accepted)
    assert 0 <= rate * paid_rounds - sum(earned.values()) < 8
    assert set(earned) == set(accepted_rounds(records))


def test_pay_is_by_weight_and_tier() -> None:
    assert expected_pay([record(1, [(0, 0, 1), (3, 1, 2)])], 100, (2, 1, 1, 1)) == {0: 50, 3: 50}


def test_plot_and_view_show_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    member = MemberProgress(0, 0, "w")
    for step in range(5):
        member.apply(
            {"event": "train", "step": step, "loss": 5.0 - step, "bytes": 16, "parameters": 10_000, "slot": 0}
        )
    png = plot_run("demo", [member], tmp_path / "loss.png")
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(sparkline([1, 2, 3])) == 3
    with View(ChainProgress("demo", 10, phase="Warmup"), [member], headless=True) as view:
        view.update()
        view.say(json.dumps({"a": [1]}))
    shown = capsys.readouterr().err
    assert "Warmup" in shown
    assert "loss 1.000" in shown
    assert '{"a": [1]}' in shown
