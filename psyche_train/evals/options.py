"""What a member evaluates while it is a member."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SLICE_TOKENS = 1024
"""Tokens of one forward pass, padding included: a member's duty waits for one at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """What a member evaluates, and how often."""

    every: int
    """Steps between the beginnings of two evaluations."""
    tasks: tuple[str, ...] = ()
    folder: Path | None = None
    """Holds `<task>.jsonl`; None takes the data sets from the Hugging Face Hub."""
    limit: int = 100
    """Questions of each task."""
    prompt: str = ""
    """A text to continue."""
    prompt_tokens: int = 64
