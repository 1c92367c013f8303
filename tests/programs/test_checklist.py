"""The checklist in README.md names tests that exist."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_test_that_the_checklist_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (HERE / "README.md").read_text()))
    defined = {
        name
        for path in HERE.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.M)
    }
    assert len(named) > 30
    assert named - defined == set()
