"""Writes docs/training-commands.md: every command of `psyche-train`, most with what they really printed.

    python -m tests.train.commands_doc          # write the page
    python -m tests.train.commands_doc --check  # compare it; exit status 1 if it differs

Losses and drawn texts differ in their last digits from machine to machine: comparing leaves them out.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from psyche_train.cli.main import main
from tests.commands_page import ROOT, Shown, output_of, write_or_check
from tests.train import commands_page

PAGE = ROOT / "docs/training-commands.md"
QUESTIONS = {
    "arc_easy": [
        {"question": question, "choices": {"text": choices, "label": ["A", "B", "C", "D"]}, "answerKey": key}
        for question, choices, key in (
            ("Which of these is hot?", ["ice", "fire", "snow", "rain"], "B"),
            ("Which of these can fly?", ["a stone", "a fish", "a bird", "a tree"], "C"),
        )
    ],
    "piqa": [{"goal": "Cool a drink", "sol1": "Put ice into it.", "sol2": "Put it on fire.", "label": 0}],
}
TRAIN = "train run.toml --tiers 0,1 --steps 4 --out runs/local"


class Session:
    """A user at a terminal, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.shown: dict[str, list[Shown]] = {}
        text = (ROOT / "config/smoke.toml").read_text()
        # text that is the same on every machine
        text = text.replace(
            "[model.LLM.data_location.Stdlib]\nmax_bytes = 200_000", "[model.LLM.data_location.Dummy]"
        )
        assert "Dummy" in text
        (folder / "run.toml").write_text(text)
        (folder / "tasks").mkdir()
        for name, rows in QUESTIONS.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "tasks" / f"{name}.jsonl").write_text(lines)

    def show(self, line: str, *, status: int = 0) -> None:
        """Run a command line and put it on the page, under its command."""
        output, found = output_of(
            main, [*shlex.split(line), *(["--device", "cpu"] if _computes(line) else [])]
        )
        assert found == status, (line, found, output)
        self.shown.setdefault(line.split()[0], []).append(Shown(line, _stable(output), found))


def _computes(line: str) -> bool:
    return line.split()[0] in ("train", "generate", "eval")


def _stable(text: str) -> str:
    """Without what differs from session to session."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "HASH", text)
    text = re.sub(r"(step-\d{8}-)[0-9a-f]{8}", r"\1HASH", text)
    text = re.sub(r"(seconds per step +)[\d.]+", r"\1SECONDS", text)
    return re.sub(r"in [\d.]+ s$", "in SECONDS s", text, flags=re.MULTILINE)


def play(s: Session) -> None:
    """The session of the page."""
    s.show(TRAIN)
    s.show(TRAIN.replace("--steps 4", "--steps 6"))
    s.show("train run.toml --tiers 0,2", status=2)
    s.show("train run.toml --set lr_schedule.Constant.base_lr=fast", status=3)
    s.show("plot-schedule run.toml --steps 100 -o schedule.png")
    s.show("generate runs/local --prompt 'def main(' --max-tokens 16 --seed 1")
    s.show("generate runs/nothing", status=4)
    s.show("eval runs/local --config run.toml --tasks arc_easy,piqa --task-dir tasks")
    s.show("eval runs/local --tasks mmlu --task-dir tasks", status=4)


def build() -> str:
    """The page as it should be."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        s = Session(Path(name))
        with mock.patch.dict(os.environ, {"NO_COLOR": "1"}):
            play(s)
        return commands_page.render(s.shown)


def comparable(page: str) -> list[str]:
    """The page's lines without losses and drawn texts."""
    page = re.sub(r"(?<=--seed 1\n)(.*?)(?=```)", "TEXT\n", page, flags=re.DOTALL)
    return re.sub(r"\b\d+\.\d+\b", "NUMBER", page).splitlines()


def run(arguments: Sequence[str]) -> int:
    """Write or compare the page; the exit status."""
    return write_or_check(PAGE, build(), arguments, comparable)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
