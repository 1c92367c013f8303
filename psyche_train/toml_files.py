"""Read a TOML file into a pydantic model; every failure is one sentence about a file and a key path.

Also what Psyche's own `state.toml` needs: keys that mean nothing here are named in a warning,
`[model_extra_data]` is read as `[model.LLM]`, and a unit variant (`data_location = "Dummy"`) as an empty
table.
"""

import difflib
import json
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from psyche_train.errors import ConfigError

M = TypeVar("M", bound=BaseModel)

MEANINGLESS: Final = {
    "run_state": "a run's state is on chain",
    "config.verification_percent": "there is no verifier committee; every round is attested by its witnesses",
    "model.LLM.checkpoint_source": "the chain names the last agreed checkpoint",
    "model.LLM.data_location.Http.shuffle": "every source is shuffled by the run's own seed",
    "model.LLM.version": "the specification has no version of its own",
}
"""Keys of Psyche's files without a meaning here, and why."""

_LLM_ENUMS: Final = ("checkpoint", "data_location", "lr_schedule", "optimizer")

_NEEDED: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text in quotes",
    "bool_type": "true or false",
    "list_type": "a list in [ ]",
    "tuple_type": "a list in [ ]",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "decimal_type": "a number",
    "decimal_parsing": "a number",
    "is_instance_of": "a number",  # of the types in our files, only a Decimal is asked for by class
    "finite_number": "a finite number",
}


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables; fractions come as `Decimal`, so that money stays exact.

    Raises:
        ConfigError: the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"), parse_float=Decimal)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file", "examples are in config/, such as config/demo.toml"
        ) from None
    except OSError as exc:
        raise ConfigError(f"{path}: the file cannot be read: {exc.strerror}", "name a TOML file") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"{path}: the file cannot be read: byte {exc.start} is not UTF-8 text",
            "save it as UTF-8; compare with config/demo.toml",
        ) from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: not TOML: {exc}", "compare with config/demo.toml") from exc


def adapt(tables: dict[str, Any]) -> list[str]:
    """Bring the tables of a Psyche file into this package's shape, in place; return warnings."""
    warnings: list[str] = []
    extra = tables.pop("model_extra_data", None)
    if isinstance(extra, dict):
        llm = tables.setdefault("model", {})
        llm = llm.setdefault("LLM", {}) if isinstance(llm, dict) else {}
        if isinstance(llm, dict):
            llm.update({key: value for key, value in extra.items() if key not in llm})
        warnings.append("[model_extra_data] is read as [model.LLM]")
    for path, reason in MEANINGLESS.items():
        *parents, last = path.split(".")
        table: Any = tables
        for name in parents:
            table = table.get(name) if isinstance(table, dict) else None
        if isinstance(table, dict) and last in table:
            warnings.append(f"{path} = {show(table.pop(last))} has no effect: {reason}")
    llm = tables.get("model")
    llm = llm.get("LLM") if isinstance(llm, dict) else None
    if isinstance(llm, dict):
        for name in _LLM_ENUMS:
            if isinstance(llm.get(name), str):
                llm[name] = {llm[name]: {}}
    return warnings


def floats(value: Any) -> Any:
    """Turn every `Decimal` into the nearest float."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {k: floats(v) for k, v in value.items()}
    if isinstance(value, list):
        return [floats(v) for v in value]
    return value


def show(value: Any) -> str:
    """A value as a message shows it: short, on one line, as TOML writes it."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, Decimal):
        return str(value)
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def validate(model: type[M], tables: Mapping[str, Any], path: Path) -> M:
    """Build the model.

    Raises:
        ConfigError: the first thing that is wrong, in a sentence; the hint lists where else something is.
    """
    try:
        return model.model_validate(tables)
    except ValidationError as exc:
        # an unknown key first: a misspelt key is often the missing one
        problems = sorted(exc.errors(include_url=False), key=lambda p: p["type"] != "extra_forbidden")
        first = f"{path}: {_sentence(model, problems[0])}"
        others = [_key(p["loc"]) for p in problems[1:]]
        hint = f"also wrong: {', '.join(dict.fromkeys(others))}" if others else ""
        raise ConfigError(first, hint) from None


def _key(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the file"


def _sentence(model: type[BaseModel], problem: Any) -> str:
    kind, loc, ctx = problem["type"], problem["loc"], problem.get("ctx") or {}
    key, found = _key(loc), show(problem["input"])
    if kind == "extra_forbidden":
        known = _known_keys(model, loc[:-1])
        close = difflib.get_close_matches(str(loc[-1]), known, n=1)
        guess = f"; did you mean {close[0]}?" if close else ""
        return f"{key} is not a known key{guess} (allowed here: {', '.join(known) or 'none'})"
    if kind == "missing":
        return f"{key} is missing"
    if kind in _NEEDED:
        return f"{key} = {found}, {_NEEDED[kind]} is needed"
    bounds = {"greater_than": "more than", "greater_than_equal": "at least", "less_than": "less than"}
    bounds |= {"less_than_equal": "at most"}
    if kind in bounds:
        return f"{key} = {found}, it must be {bounds[kind]} {next(iter(ctx.values()))}"
    if kind == "literal_error":
        return (
            f"{key} = {found}, allowed: {ctx['expected'].replace('True', 'true').replace('False', 'false')}"
        )
    if kind == "string_pattern_mismatch":
        return f"{key} = {found}, it must match {ctx['pattern']}"
    if kind in ("too_long", "string_too_long", "too_short", "string_too_short"):
        limit = ctx.get("max_length", ctx.get("min_length"))
        return f"{key} = {found}, its length must be {'at most' if 'long' in kind else 'at least'} {limit}"
    if kind == "value_error":
        return f"{key}: {ctx['error']}" if loc else str(ctx["error"])
    return f"{key} = {found}: {problem['msg']}"


def _known_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    here: type[BaseModel] | None = model
    for part in loc:
        field = here.model_fields.get(str(part)) if here is not None else None
        here = _model_of(field.annotation) if field is not None else None
    return [] if here is None else list(here.model_fields)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _model_of(a)) is not None), None)
