"""One question, and how most of them are put."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .world import World

Json = Any
Ask = Callable[[World], Json]


@dataclass(frozen=True)
class Question:
    """One request: its stable name, and how it is put to a chain."""

    name: str
    ask: Ask


def method(name: str, method: str, *params: Json) -> Question:
    return Question(name, lambda world: world.rpc.ask(method, *params))
