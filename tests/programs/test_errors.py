"""Every error that the three programs can give is given, by the program that it belongs to.

One provocation a code, in a table (`errors_*.py`). The tables must name exactly what the IDLs name: a new code
without a provocation fails here, whatever other tests there are and in whatever order they run.
"""

import json
import re
from pathlib import Path

import pytest

from tests.programs import calls, errors_coordinator, errors_machine, errors_others
from tests.programs.chain_harness import AUTHORIZER, COORDINATOR, PROGRAMS, TREASURER, Chain, Refused, config
from tests.programs.stages import created

IDLS = {"coordinator": COORDINATOR, "authorizer": AUTHORIZER, "treasurer": TREASURER}
TABLES = {
    "coordinator": errors_machine.TABLE | errors_coordinator.TABLE,
    "authorizer": errors_others.AUTHORIZER_TABLE,
    "treasurer": errors_others.TREASURER_TABLE,
}
UNREACHABLE = {
    "coordinator": errors_machine.UNREACHABLE,
    "authorizer": {},
    "treasurer": errors_others.TREASURER_UNREACHABLE,
}
MACHINE = Path(__file__).parents[2] / "programs" / "coordinator" / "src" / "machine" / "error.rs"


@pytest.fixture(scope="module")
def shared():
    """One chain for all provocations: a transaction that fails leaves nothing behind."""
    chain = Chain()
    calls.install(chain)
    return chain


@pytest.mark.parametrize("program", IDLS)
def test_no_error_is_without_a_provocation(program):
    named = set(IDLS[program].errors.values())
    assert set(TABLES[program]) | set(UNREACHABLE[program]) == named
    assert not set(TABLES[program]) & set(UNREACHABLE[program])


def test_no_error_of_the_machine_is_without_a_provocation():
    names = re.findall(r"^ {12}(\w+) => \"", MACHINE.read_text(), re.MULTILINE)
    assert [COORDINATOR.errors[6000 + i] for i in range(len(names))] == names
    assert set(names) == set(errors_machine.TABLE) | set(errors_machine.UNREACHABLE)


@pytest.mark.parametrize(("program", "name"), [(p, name) for p, table in TABLES.items() for name in table])
def test_error_is_given(shared, program, name):
    with pytest.raises(Refused) as caught:
        TABLES[program][name](shared)
    assert (caught.value.name, caught.value.program) == (name, str(IDLS[program].program)), caught.value


@pytest.mark.parametrize(
    ("name", "changes"),
    [(name, changes) for name, broken in errors_machine.RULES.items() for changes in broken],
)
def test_rule_is_named_when_broken(shared, name, changes):
    """Every number of a configuration, one beyond each of its limits and the largest that fits the field."""
    run = created(shared)
    with pytest.raises(Refused) as caught:
        run.act("configure", config=config(**changes))
    assert caught.value.name == name


@pytest.mark.parametrize("program", IDLS)
def test_every_error_has_a_sentence_of_its_own(program):
    messages = [e["msg"] for e in json.loads((PROGRAMS / f"{program}.json").read_text())["errors"]]
    assert len(set(messages)) == len(messages)
    assert all(len(m.split()) >= 5 for m in messages)
