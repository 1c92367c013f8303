"""Every event of the three programs is emitted, with fields that agree with the accounts.

One scenario an event, in a table; the tables must name exactly the events of the IDLs.
"""

import pytest

from tests.programs import events_coordinator, events_others
from tests.programs.chain_harness import AUTHORIZER, COORDINATOR, TREASURER, Chain

IDLS = {"coordinator": COORDINATOR, "authorizer": AUTHORIZER, "treasurer": TREASURER}
TABLES = {
    "coordinator": events_coordinator.TABLE,
    "authorizer": events_others.AUTHORIZER_TABLE,
    "treasurer": events_others.TREASURER_TABLE,
}


@pytest.fixture(scope="module")
def shared():
    """One chain for all scenarios: each makes a run of its own."""
    return Chain()


@pytest.mark.parametrize("program", IDLS)
def test_no_event_is_without_a_scenario(program):
    assert set(TABLES[program]) == set(IDLS[program].events.values())


@pytest.mark.parametrize(("program", "name"), [(p, name) for p, table in TABLES.items() for name in table])
def test_event_tells_what_the_accounts_say(shared, program, name):
    event, expected = TABLES[program][name](shared)
    assert event == expected
    fields = [f["name"] for f in IDLS[program].types[name]["fields"]]
    assert list(event) == fields  # none was left out of the comparison
