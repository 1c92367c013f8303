"""What `train` does: rounds, validations, and what it tells and leaves."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from psyche_train.batch_ramp import BatchRamp
from psyche_train.cli import output
from psyche_train.errors import PsycheError
from psyche_train.local_run import LocalRun
from psyche_train.local_run import Progress as Round
from psyche_train.plots import MemberCurve, plot_losses
from psyche_train.spec import TrainSpec

LINE_EVERY_S = 60.0
"""Where there is no terminal to draw a bar on, a line tells of the progress so often."""


class TrainSession:
    """A local run with a reader: a person at a terminal, a log file, or a program that reads JSON lines.

    Args:
        until: step at which the training ends.
        samples: of a round, or how they grow.
        keep: `folder` stays: write checkpoints, summary and curves into it.
        every: steps between validations.
    """

    def __init__(
        self,
        spec: TrainSpec,
        *,
        name: str,
        tiers: Sequence[int],
        until: int,
        samples: int | BatchRamp,
        folder: Path,
        keep: bool,
        every: int,
        device: str,
        threads: int | None,
        json: bool,
    ) -> None:
        self.interrupted = False
        """Set to end after the round under way."""
        self._name, self._until, self._every = name, until, every
        self._folder, self._keep, self._json = folder, keep, json
        self._tiers = list(tiers)
        self._run = LocalRun(spec, tiers, folder / "members", samples=samples, threads=threads, device=device)
        self._first = self._run.step
        self._rounds: list[Round] = []
        self._validations: list[tuple[int, dict[int, float]]] = []
        self._line_at = time.monotonic()

    def run(self) -> None:
        """Train, and tell of it.

        Raises:
            PsycheError: the members' weights differ, which is a bug of the fold, or an update was empty.
        """
        self._tell_start()
        console = Console(stderr=True)
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}"),
        )
        with Progress(*columns, console=console, disable=self._json or not console.is_terminal) as bars:
            bar = bars.add_task("train", total=self._until, completed=self._first, told="")
            self._validate()
            for round_ in self._run.train(max(0, self._until - self._first)):
                self._rounds.append(round_)
                bars.update(bar, completed=round_.step + 1, told=_losses(round_))
                self._tell_round(round_, drawn=not bars.disable)
                ends = self.interrupted or round_.step + 1 == self._until
                if ends:
                    self._run.drain()
                if ends or (round_.step + 1) % self._every == 0:
                    self._validate()
                if ends:
                    break
        self._check()
        self._tell_end()

    def _validate(self) -> None:
        step = self._run.step
        losses = {
            tier: self._run.members[self._tiers.index(tier)].validation_loss()
            for tier in sorted(set(self._tiers))
        }
        self._validations.append((step, losses))
        if self._json:
            self._line(
                {"event": "validation", "step": step, "losses": {str(k): v for k, v in losses.items()}}
            )
        else:
            told = "  ".join(f"tier {tier} {loss:.4f}" for tier, loss in losses.items())
            output.data(f"step {step}: validation loss  {told}")

    def _check(self) -> None:
        """A curve means something only if updates were exchanged and all hold the same weights."""
        smallest = {member.digests()[0] for member in self._run.members}
        if len(smallest) > 1:
            raise PsycheError(
                "the members' weights differ: the fold is broken", "report this with the configuration"
            )
        if any(size == 0 for round_ in self._rounds for size in round_.payload_bytes):
            raise PsycheError("an update was empty", "report this with the configuration")

    def _tell_start(self) -> None:
        members = [
            {"member": i, "tier": member.tier, "parameters": member.parameters}
            for i, member in enumerate(self._run.members)
        ]
        if self._json:
            self._line(
                {
                    "event": "start",
                    "run": self._name,
                    "step": self._first,
                    "until": self._until,
                    "members": members,
                }
            )
            return
        for entry in members:
            output.note(f"member {entry['member']}: tier {entry['tier']}, {entry['parameters']:,} parameters")
        if self._first:
            output.note(f"going on at step {self._first}")

    def _tell_round(self, round_: Round, *, drawn: bool) -> None:
        if self._json:
            self._line(
                {
                    "event": "step",
                    "step": round_.step,
                    "samples": round_.samples,
                    "learning_rate": round_.learning_rate,
                    "losses": list(round_.losses),
                    "update_bytes": list(round_.payload_bytes),
                    "seconds": round(round_.seconds, 3),
                }
            )
        elif not drawn and time.monotonic() >= self._line_at + LINE_EVERY_S:
            self._line_at = time.monotonic()
            output.note(f"step {round_.step + 1} of {self._until}: {_losses(round_)}")

    def _tell_end(self) -> None:
        summary = self.summary()
        if self._keep:
            checkpoints = [member.save() for member in self._run.members]
            summary["checkpoints"] = [str(path) for path in checkpoints]
            self._write_curves(self._folder / "loss.png")
            text = json.dumps(summary, indent=2)
            (self._folder / "summary.json").write_text(text + "\n")
        if self._json:
            self._line({"event": "end", **summary})
            return
        lines = {
            "steps": f"{summary['first_step']} to {summary['step']}",
            "bytes per parameter and step": summary["bytes_per_parameter_and_step"],
            "seconds per step": summary["seconds_per_step"],
            "weights of all members equal": True,
            "weights of the smallest slice": summary["weights_sha256"],
        }
        output.data("\n".join(output.pairs(lines)))
        if self._keep:
            output.note(f"checkpoints, summary.json and loss.png are in {self._folder}")

    def summary(self) -> dict[str, Any]:
        """What the run came to."""
        rounds, members = self._rounds, self._run.members
        ratios = [
            size / member.parameters
            for round_ in rounds
            for member, size in zip(members, round_.payload_bytes, strict=True)
        ]
        step, losses = self._validations[-1]
        return {
            "run": self._name,
            "tiers": self._tiers,
            "parameters": [member.parameters for member in members],
            "first_step": self._first,
            "step": step,
            "samples": sum(round_.samples for round_ in rounds),
            "training_losses": list(rounds[-1].losses) if rounds else [],
            "validation_losses": {str(tier): loss for tier, loss in losses.items()},
            "bytes_per_parameter_and_step": round(sum(ratios) / len(ratios), 6) if ratios else None,
            "seconds_per_step": round(sum(r.seconds for r in rounds) / len(rounds), 3) if rounds else None,
            "weights_sha256": members[0].digests()[0].hex(),
        }

    def _write_curves(self, path: Path) -> None:
        steps = [round_.step for round_ in self._rounds]
        curves = [
            MemberCurve(f"member {i}, tier {tier}", tier, (steps, [r.losses[i] for r in self._rounds]))
            for i, tier in enumerate(self._tiers)
        ]
        validation = {
            tier: ([step for step, _ in self._validations], [losses[tier] for _, losses in self._validations])
            for tier in set(self._tiers)
        }
        plot_losses(path, f"{self._name}: loss", curves, validation, "nats per token")

    def _line(self, value: dict[str, Any]) -> None:
        output.data(json.dumps(value))
        sys.stdout.flush()


def _losses(round_: Round) -> str:
    return "loss " + " ".join(f"{loss:.3f}" for loss in round_.losses)
