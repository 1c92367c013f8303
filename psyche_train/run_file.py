"""The part of a run's TOML that training needs: `[model.LLM]`, and from `[config]` the batch and the steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from psyche_train.batch_ramp import BatchRamp
from psyche_train.errors import ConfigError
from psyche_train.spec import TrainSpec
from psyche_train.toml_files import adapt, floats, read_toml, validate


class _ModelTable(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    LLM: TrainSpec


class _Steps(BatchRamp):
    total_steps: int = Field(ge=1, lt=2**63)


class _Ignored(BatchRamp):
    """`[config]` as far as training goes; its other keys are the coordinator's."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    total_steps: int = Field(ge=1, lt=2**63)


class RunFile(BaseModel):
    """What a training configuration says; `[config]` may be absent."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    run_id: str = "run"
    config: _Ignored | None = None
    model: _ModelTable

    @property
    def spec(self) -> TrainSpec:
        """The training specification, `[model.LLM]`."""
        return self.model.LLM


def load_run_file(path: Path, changes: Sequence[str] = ()) -> tuple[RunFile, list[str]]:
    """Read a run's TOML; return it with the warnings about keys that mean nothing here.

    Args:
        changes: ``dotted.key=VALUE`` each, of `[model.LLM]`; the value is JSON, or else text.

    Raises:
        ConfigError: one sentence that names file, key path, what was found and what is allowed.
    """
    tables = read_toml(path)
    warnings = adapt(tables)
    tables = floats(tables)
    for change in changes:
        _change(tables, change)
    return validate(RunFile, tables, path), warnings


def _change(tables: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    names = ["model", "LLM", *key.split(".")]
    if not equals or not all(names):
        raise ConfigError(
            f"--set {change!r} is not KEY=VALUE", "for example --set lr_schedule.Cosine.base_lr=0.003"
        )
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = text
    table: Any = tables
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, Mapping):
            raise ConfigError(f"--set {key}: {name} is a value in the file, not a table")
    table[names[-1]] = value
