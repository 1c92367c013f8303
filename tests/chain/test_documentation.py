"""docs/configuration.md names every key that a run's file may hold, and no command of the README is missing."""

from __future__ import annotations

import re
import typing
from pathlib import Path

from pydantic import BaseModel

from psyche_chain.cli.main import app
from psyche_chain.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]


def keys(model: type[BaseModel]) -> set[str]:
    """Names of all fields of a model and of the models in it."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(name)
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= keys(kind)
    return found


def test_every_key_of_a_configuration_is_documented() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    named = set(re.findall(r"[A-Za-z_0-9]+", " ".join(re.findall(r"`([^`]+)`", text))))
    assert keys(RunConfig) - named == set()


def test_commands_of_the_readme_exist() -> None:
    commands = {c.name for c in app.registered_commands} | {g.name for g in app.registered_groups}
    named = set(re.findall(r"^psyche-chain ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named
    assert named <= commands
