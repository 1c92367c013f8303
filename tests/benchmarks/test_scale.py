"""The page on scale: properties of its simulation, and that its command works on a small run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale import limits, model, shapes, tables
from benchmarks.scale.__main__ import main
from benchmarks.scale.exchange import Costs, Exchange, Line, simulate, spread
from benchmarks.scale.measure import full_state
from benchmarks.scale.page import PAGE, write_page
from benchmarks.scale.scenes import Scene, play_all
from benchmarks.scale.shapes import STRATEGIES, shape_grids, update_bytes
from psyche_chain.chain.layout import run_state_size
from psyche_chain.chain.state import RunState
from psyche_train.bench.models import random_body
from psyche_train.strategies.header import MAX_HEADER_BYTES
from psyche_train.strategies.payload import PayloadLayout

MEASURED = model.load_measured()

speeds = st.floats(1e5, 1e8)
lines = st.builds(Line, speeds, speeds)
exchanges = st.integers(1, 7).flatmap(
    lambda count: st.builds(
        Exchange,
        st.tuples(*[lines] * count),
        st.tuples(*[st.integers(1, 9_000_000)] * count),
        one_way_s=st.floats(0, 0.2),
        spread_s=st.floats(0, 1),
        seed=st.integers(0, 99),
    )
)


@settings(deadline=None, max_examples=15)
@given(exchanges)
def test_everybody_gets_every_byte_and_no_line_carries_more_than_it_can(exchange: Exchange) -> None:
    outcome = simulate(exchange)
    total = sum(exchange.blobs)
    for member, own in enumerate(exchange.blobs):
        assert outcome.bytes_in[member] >= total - own
        assert outcome.bytes_out[member] <= exchange.lines[member].up * outcome.ended_s * 1.001
        assert outcome.bytes_in[member] <= exchange.lines[member].down * outcome.ended_s * 1.001
    assert sum(outcome.bytes_in) == sum(outcome.bytes_out)
    assert outcome.all_s >= exchange.bound_s() * (1 - 1e-9)


@settings(deadline=None, max_examples=15)
@given(exchanges)
def test_the_same_seed_gives_the_same_exchange(exchange: Exchange) -> None:
    assert simulate(exchange) == simulate(exchange)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 10), st.integers(1, 4_000_000), st.integers(0, 9), st.floats(1e5, 1e7))
def test_twice_the_bandwidth_is_never_slower(count: int, size: int, seed: int, speed: float) -> None:
    slow = Exchange((Line(speed, speed),) * count, (size,) * count, seed=seed)
    fast = replace(slow, lines=(Line(2 * speed, 2 * speed),) * count)
    assert simulate(fast).all_s <= simulate(slow).all_s * 1.02


def test_one_member_has_nothing_to_wait_for() -> None:
    alone = Exchange((Line(1.0, 1.0),), (1_000_000,))
    assert simulate(alone).all_s == 0.0 == alone.bound_s()
    assert simulate(alone).bytes_in == [0]


def test_an_asymmetric_line_is_as_slow_as_its_slower_way() -> None:
    count, size = 8, 500_000
    asked = Exchange((Line(1e5, 1e6),) * count, (size,) * count)
    took_s = simulate(asked).all_s
    assert 35.0 == asked.bound_s() <= took_s <= 45.0


def test_a_fast_line_waits_for_the_processor() -> None:
    count, size = 8, 2_000_000
    asked = Exchange((Line(1e9, 1e9),) * count, (size,) * count)
    busy = simulate(replace(asked, costs=Costs(0.0, 1e-7)))
    least_s = 2 * (count - 1) * size * 1e-7
    assert min(busy.cpu_s) >= least_s * 0.999
    assert simulate(asked).all_s < least_s <= busy.all_s <= 1.5 * least_s


@pytest.mark.parametrize("wrong", [{"lines": ()}, {"blobs": (0,)}, {"lines": (Line(0.0, 1.0),)}])
def test_an_exchange_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"lines|blobs"):
        Exchange(**{"lines": (Line(1.0, 1.0),), "blobs": (1,), **wrong})  # type: ignore[arg-type]


def test_updates_weigh_what_the_codec_writes() -> None:
    grids = shape_grids("1 B")[:9]
    for topk in (4, 8):
        layout = PayloadLayout(grids, topk)
        written = len(layout.encode(random_body(grids, topk, 0)))
        share = sum(g.num_chunks * g.area for g in grids) / shapes.parameters("1 B")
        strategy = next(s for s in STRATEGIES if s.kind == "distro" and s.topk == topk)
        assert math.isclose(written / share, update_bytes("1 B", strategy) - MAX_HEADER_BYTES, rel_tol=0.003)
    assert 0.95e9 < shapes.parameters("1 B") < 1.05e9
    assert 38e9 < shapes.parameters("40 B") < 42e9


@pytest.mark.parametrize("members", model.SIZES)
def test_the_account_that_is_polled_is_one_that_members_read(members: int) -> None:
    data = full_state(members)
    assert len(data) == run_state_size(members)
    state = RunState.from_account(data)
    assert sum(1 for _ in state.members()) == members
    assert model.poll_bytes(members) > 4 / 3 * len(data)


def test_rent_and_units_are_those_of_the_page_of_costs() -> None:
    assert round(model.rent_sol(16), 6) == 0.052284
    assert round(model.rent_sol(256), 6) == 0.486588
    assert model.rent_sol(16) < model.rent_sol(64) < model.rent_sol(256)
    assert model.units("coordinator.commit", 16)[0] < model.units("coordinator.commit", 256)[1] <= 200_000


def test_utilisation_knows_what_is_hidden_behind_training() -> None:
    assert model.utilisation(0.0).overlapped == model.utilisation(100.0).overlapped > 0.98
    assert model.utilisation(480.0).overlapped < 0.5
    assert model.utilisation(100.0).waiting < 0.71
    assert model.utilisation(0.0, fold_s=240.0).overlapped < 0.5


def test_limits_break_where_they_say() -> None:
    found = limits.limits(MEASURED)
    assert len({one.what for one in found}) == len(found)
    for one in found:
        at = one.breaks_at()
        if at is not None:
            assert one.share(at) >= 1
            assert at == 2 or one.share(at - 1) < 1
    order = [one.breaks_at() or math.inf for one in limits.ordered(MEASURED)]
    assert order == sorted(order)


def test_the_page_is_the_one_that_the_code_gives_and_keeps_its_prose(tmp_path: Path) -> None:
    text = PAGE.read_text()
    for table in (
        limits.table(MEASURED),
        tables.updates(),
        tables.chain(MEASURED),
        tables.machines(MEASURED),
    ):
        assert table in text, "run python -m benchmarks.scale page"
    page = tmp_path / "scale.md"
    played = play_all([Scene(4, "1 B", "500")], MEASURED, 1, tmp_path / "kept.json")
    page.write_text(text.replace("# Scale", "# Scale, and prose of ours", 1))
    write_page(page, MEASURED, played)
    assert page.read_text().startswith("# Scale, and prose of ours")
    assert (tmp_path / "scale" / "scale.png").stat().st_size > 10_000
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="lost its marks"):
        write_page(page, MEASURED, played)


def test_what_was_simulated_is_not_simulated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept.json"
    scenes = [Scene(4, "1 B", "500"), Scene(256, "40 B", "100")]
    first = play_all(scenes, MEASURED, 1, kept)
    assert [one.simulated for one in first] == [True, False]
    assert len(json.loads(kept.read_text())) == 1
    monkeypatch.setattr("benchmarks.scale.scenes.play", None)
    assert play_all(scenes, MEASURED, 1, kept) == first


def test_bad_arguments_are_answered_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--sizes", "3"])
    assert "choose of 16, 64, 256" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"benchmarks\.scale measure"):
        main(["--measured", str(tmp_path / "none.json")])
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(SystemExit, match="no measured constants"):
        main(["--measured", str(tmp_path / "bad.json")])


@pytest.mark.slow
def test_the_simulation_is_near_real_processes() -> None:
    from benchmarks.scale.validate import compare

    found = compare(4, Line(1e6, 1e6), 1_000_000, MEASURED, rounds=2)
    assert 0.5 <= found["simulated_s"] / found["real_low_s"] <= 1.5
    assert found["real_low_s"] >= 0.95 * found["bound_s"]


def test_spread_takes_lines_in_turns() -> None:
    fast, slow = Line(2.0, 2.0), Line(1.0, 1.0)
    assert spread([fast, slow], [5, 6, 7], 4) == ((fast, slow, fast, slow), (5, 6, 7, 5))
