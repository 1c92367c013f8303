"""What the programs cost, against the committed table, the design's limits and the page that shows it."""

import copy

import pytest

from psyche_chain.chain.instructions import TICKING_UNITS
from tests.programs.chain_harness import AUTHORIZER, COORDINATOR, TREASURER
from tests.programs.costs import limits, measure
from tests.programs.costs.page import PAGE, page
from tests.programs.costs.table import RENEW, Table, differences


@pytest.fixture(scope="module")
def measured():
    return measure.table()


@pytest.fixture
def recorded():
    return Table.load()


@pytest.mark.slow
@pytest.mark.xdist_group("costs")
def test_costs_are_those_of_the_table(measured, recorded):
    found = differences(recorded, measured)
    assert not found, "\n".join([*found, RENEW])


@pytest.mark.slow
@pytest.mark.xdist_group("costs")
def test_limits_hold_as_measured(measured):
    assert [reach for reach in limits.reaches(measured) if not reach.holds] == []


def test_the_table_has_every_instruction(recorded):
    programs = {"authorizer": AUTHORIZER, "coordinator": COORDINATOR, "treasurer": TREASURER}
    named = {f"{program}.{name}" for program, idl in programs.items() for name in idl.instructions}
    assert set(recorded.instructions) == named


def test_the_table_has_every_account(recorded):
    named = {name for idl in (AUTHORIZER, COORDINATOR, TREASURER) for name in idl.accounts}
    assert named | {"RunState", "Vault (token account)"} == set(recorded.accounts)


def test_every_instruction_has_figures_at_both_capacities(recorded):
    assert [key for key, value in recorded.figures().items() if not value] == []


def test_the_update_of_a_pool_is_measured_with_every_action(recorded):
    variants = {v["name"] for v in TREASURER.types["PoolAction"]["variants"]}
    cases = {case.split(":")[0] for case in recorded.instructions["treasurer.update_pool"]}
    assert {"".join(word.capitalize() for word in case.split("_")) for case in cases} == variants


@pytest.mark.parametrize("number", range(7))
def test_limits_hold(recorded, number):
    reach = list(limits.reaches(recorded))[number]
    assert reach.holds, reach


def test_there_are_seven_limits(recorded):
    assert len(list(limits.reaches(recorded))) == 7


def test_clients_ask_for_what_the_dearest_chain_of_transitions_needs():
    assert limits.TICKING_UNITS == TICKING_UNITS


def test_the_page_shows_the_table(recorded):
    assert PAGE.read_text() == page(recorded), RENEW


COMMIT = ("coordinator.commit", "nothing due")


@pytest.mark.parametrize(
    ("kind", "factor", "refused"),
    [("units", 1.02, False), ("units", 1.04, True), ("units", 0.96, True), ("bytes", 1.01, True)],
)
def test_a_difference_is_found_beyond_the_tolerance(recorded, kind, factor, refused):
    changed = copy.deepcopy(recorded)
    cell = changed.instructions[COMMIT[0]][COMMIT[1]][kind]
    cell[1] = round(cell[1] * factor)
    found = differences(recorded, changed)
    assert bool(found) == refused
    assert all(line.startswith("coordinator.commit (nothing due)") for line in found)


def test_a_case_that_is_new_or_gone_is_found(recorded):
    fewer = copy.deepcopy(recorded)
    del fewer.instructions[COMMIT[0]][COMMIT[1]]
    assert "not measured any more" in differences(recorded, fewer)[0]
    assert "not in the table" in differences(fewer, recorded)[0]
