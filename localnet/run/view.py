"""What a person sees while the run goes on: a live table on a terminal, plain lines without one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from localnet.run.progress import MemberProgress
from psyche_train.cli.output import plain

SPARKS = "▁▂▃▄▅▆▇█"
STATE_STYLES = {
    "training": "green",
    "folding": "cyan",
    "witnessing": "cyan",
    "checkpointing": "magenta",
    "syncing": "yellow",
    "waiting": "dim",
    "killed": "bold red",
    "finished": "bold green",
}


@dataclass
class ChainProgress:
    """The chain's side of the picture, refreshed by the launcher."""

    run_id: str
    total_steps: int
    phase: str = "starting"
    epoch: int = 0
    round: int = 0
    step: int = 0
    network: str = ""
    """What is wrong with the network between the members; empty for nothing."""


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """The values as a row of blocks, the newest to the right; empty for no values."""
    if not values:
        return ""
    stride = max(1, len(values) / width)
    picked = [values[min(len(values) - 1, int(i * stride))] for i in range(min(width, len(values)))]
    low, high = min(picked), max(picked)
    span = (high - low) or 1.0
    return "".join(SPARKS[round((v - low) / span * (len(SPARKS) - 1))] for v in picked)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


class View:
    """Shows a run. Use as a context manager; call `update` whenever something changed, `say` for a line of log.

    With ``headless`` or without a terminal it prints one line for each new phase and every ``every_s`` seconds.
    """

    def __init__(
        self,
        chain: ChainProgress,
        members: Sequence[MemberProgress],
        *,
        headless: bool,
        every_s: float = 10.0,
    ) -> None:
        self.chain = chain
        self.members = members
        self.console = Console(stderr=True)
        self.live = not headless and self.console.is_terminal
        self._every_s = every_s
        self._started = time.monotonic()
        self._printed = (("", -1), 0.0)
        self._log: deque[str] = deque(maxlen=6)
        self._screen: Live | None = None

    def __enter__(self) -> View:
        if self.live:
            self._screen = Live(self._render(), console=self.console, refresh_per_second=4)
            self._screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen is not None:
            self._screen.update(self._render())
            self._screen.stop()
            self._screen = None

    def say(self, message: str) -> None:
        """Add one line to the log."""
        message = plain(message)
        if self._screen is None:
            self.console.print(message, highlight=False, markup=False, soft_wrap=True)
        else:
            self._log.append(message)
            self._screen.update(self._render())

    def update(self) -> None:
        """Show the present state."""
        if self._screen is not None:
            self._screen.update(self._render())
            return
        (last, printed_at), now = self._printed, time.monotonic()
        key = (self.chain.phase, self.chain.epoch)
        lasting = key[0] not in ("RoundTrain", "RoundWitness")
        if (key != last and lasting) or now - printed_at >= self._every_s:
            self._printed = (key, now)
            self.console.print(self._line(), highlight=False, markup=False, soft_wrap=True)

    def _line(self) -> str:
        members = "  ".join(
            f"[{m.index}] t{m.tier} {m.state}"
            + (f" loss {m.loss:.3f}" if m.loss is not None else "")
            + (f" val {m.val_loss:.3f}" if m.val_loss is not None else "")
            for m in self.members
        )
        c = self.chain
        return (
            f"{time.monotonic() - self._started:6.0f}s  epoch {c.epoch}  {c.phase:<17} "
            f"step {c.step}/{c.total_steps}  {members}"
        )

    def _render(self) -> RenderableType:
        c = self.chain
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(1, c.total_steps), completed=c.step, width=30)
        head.add_row(
            Text(c.phase, style="bold"),
            f"epoch {c.epoch}",
            f"round {c.round}",
            bar,
            f"step {c.step}/{c.total_steps}",
            f"{time.monotonic() - self._started:.0f} s",
        )
        table = Table(box=None, header_style="dim", pad_edge=False)
        columns: list[tuple[str, Callable[[MemberProgress], RenderableType]]] = [
            ("member", lambda m: str(m.index)),
            ("slot", lambda m: "" if m.slot is None else str(m.slot)),
            ("tier", lambda m: str(m.tier)),
            ("state", lambda m: Text(m.state, style=STATE_STYLES.get(m.state, ""))),
            ("step", lambda m: str(m.step)),
            ("loss", lambda m: _number(m.loss)),
            ("val", lambda m: _number(m.val_loss)),
            ("restarts", lambda m: str(m.restarts) if m.restarts else ""),
            ("curve", lambda m: Text(sparkline([m.losses[s] for s in sorted(m.losses)]), style="cyan")),
        ]
        for name, _cell in columns:
            table.add_column(
                name, justify="right" if name in ("step", "loss", "val") else "left", no_wrap=True
            )
        for member in self.members:
            table.add_row(*(cell(member) for _name, cell in columns))
        parts: list[RenderableType] = [head, Text(), table]
        if c.network:
            parts.insert(1, Text(f"network: {c.network}", style="yellow"))
        if self._log:
            parts += [Text(), Text("\n".join(self._log), style="dim")]
        return Panel(Group(*parts), title=f"psyche-localnet: {c.run_id}", border_style="blue")
