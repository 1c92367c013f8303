"""The box that a client shows at its start: what was asked for, and what it really holds and trains."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from psyche_train.matformer.helper import Helper, Shares
from psyche_train.matformer.loading import Strategy
from psyche_train.matformer.memory import Memory, expected, fitting_tier, free_bytes, mib
from psyche_train.models.schema import Schema
from psyche_train.spec import InitCheckpoint, TrainSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupInfo:
    """What a member holds and trains."""

    checkpoint: str
    strategy: Strategy
    sliced: bool
    """The weights were read from a checkpoint that was already a slice."""
    asked_tier: int
    effective_tier: int
    helper: str
    """Helper mode in words."""
    ffn_active: int
    """Feed-forward neurons that are trained, a helper's sample included."""
    ffn_full: int
    parameters: int
    """Parameters that are trained."""
    parameters_full: int
    ffn_rescale: float
    device: str
    memory: Memory
    """Of the real tensors once weights are loaded, before that as computed."""
    memory_free: int | None
    """Bytes free on the device when the member started."""
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        spec: TrainSpec,
        schema: Schema,
        tier: int,
        strategy: Strategy,
        *,
        shares: Shares | None = None,
        device: torch.device | None = None,
        asked_device: str = "auto",
    ) -> StartupInfo:
        """Describe a member before its weights are loaded."""
        chosen = spec.checkpoint.chosen
        device = device or torch.device("cpu")
        shares = shares or Shares(spec, schema)
        memory, free = expected(spec, schema, tier, shares), free_bytes(device)
        full = schema.family.ffn_width
        helper = shares.helper if tier > 0 else None
        shown = str(device)
        if asked_device == "auto":
            shown += " (auto: no GPU was found)" if device.type == "cpu" else " (auto)"
        return cls(
            checkpoint=f"Init, seed {chosen.seed}"
            if isinstance(chosen, InitCheckpoint)
            else spec.checkpoint.kind,
            strategy=strategy,
            sliced=False,
            asked_tier=tier,
            effective_tier=tier,
            helper=_helper_state(spec, helper, tier, runs=shares.helper is not None),
            ffn_active=helper.width(tier) if helper else full >> tier,
            ffn_full=full,
            parameters=shares.num_trained(tier),
            parameters_full=schema.num_parameters(0),
            ffn_rescale=spec.matformer.ffn_rescale,
            device=shown,
            memory=memory,
            memory_free=free,
            warnings=tuple(_warnings(spec, schema, tier, shares, memory, free)),
        )

    def loaded(self, *, checkpoint: str, sliced: bool, inferred: bool, memory: Memory) -> StartupInfo:
        """The same once weights are there.

        Args:
            inferred: the slice's tier was told from its width, for want of metadata.
            memory: of the real tensors.
        """
        warnings = tuple(warning for warning in self.warnings if not warning.startswith(_INFERRED))
        if sliced and inferred:
            warnings += (
                f"{_INFERRED} tier {self.effective_tier} from its width, as its config.json has no "
                "matformer_tier: cut it again with psyche-train slice if that is wrong",
            )
        return replace(self, checkpoint=checkpoint, sliced=sliced, memory=memory, warnings=warnings)

    def awaited(self, reason: str) -> StartupInfo:
        """The same where the agreed weights have to come first, because the first ones are not here."""
        warning = (
            f"the run's first weights are not here ({reason}): the agreed ones are fetched from other members"
        )
        return replace(self, checkpoint="the agreed one, from members", warnings=(*self.warnings, warning))

    @property
    def ffn_factor(self) -> float:
        """What the output of the feed-forward layers is multiplied by."""
        return (self.ffn_full / self.ffn_active) ** self.ffn_rescale if self.ffn_active else 1.0


_INFERRED = "the checkpoint was taken for"


def says_tier(checkpoint: Path) -> bool:
    """Whether a checkpoint directory's `config.json` names its tier."""
    try:
        return "matformer_tier" in json.loads((checkpoint / "config.json").read_text())
    except (OSError, ValueError, TypeError):
        return False


def startup_box(info: StartupInfo) -> Panel:
    """Return the box as a rich renderable."""
    table = Table.grid(padding=(0, 2))
    for label, value in rows(info):
        table.add_row(Text(label, style="bold"), Text(value))
    style = "yellow" if info.warnings or info.asked_tier != info.effective_tier else "green"
    return Panel(table, title="MatFormer", border_style=style, expand=False)


def rows(info: StartupInfo) -> list[tuple[str, str]]:
    """Return the box's lines as (label, value), warnings last."""
    matches = info.asked_tier == info.effective_tier
    memory = info.memory
    kept = [("weights", memory.weights), ("buffers", memory.own), ("momenta", memory.folded)]
    parts = [f"{name} {mib(size)}" for name, size in [*kept, ("gradient", memory.gradient)] if size]
    free = "" if info.memory_free is None else f"; {mib(info.memory_free)} were free"
    lines = [
        ("checkpoint", info.checkpoint),
        ("load strategy", info.strategy),
        ("already sliced", "yes" if info.sliced else "no"),
        ("asked tier", str(info.asked_tier)),
        ("effective tier", f"{info.effective_tier} {'✓' if matches else '✗ differs from what was asked'}"),
        ("helper", info.helper),
        ("FFN width", f"{info.ffn_active} / {info.ffn_full} ({_percent(info.ffn_active, info.ffn_full)})"),
        ("FFN output", f"x {info.ffn_factor:g}"),
        (
            "parameters",
            f"{info.parameters:,} / {info.parameters_full:,} "
            f"({_percent(info.parameters, info.parameters_full)})",
        ),
        ("device", info.device),
        ("memory", f"{mib(memory.total)}{free}"),
        ("", ", ".join(parts)),
    ]
    if not matches:
        lines.append(("warning", "leave, and join again with the tier that you want to train"))
    return lines + [("warning", warning) for warning in info.warnings]


def _helper_state(spec: TrainSpec, helper: Helper | None, tier: int, *, runs: bool) -> str:
    if helper is None:
        return "off for tier 0, which trains everything" if runs else "off"
    outside = helper.num_blocks - helper.num_own(tier)
    rounds = spec.matformer.helper_rotation_rounds
    return (
        f"on: {helper.num_sampled(tier)} of {outside} blocks of {helper.edge} neurons outside the slice, "
        f"others every {f'{rounds} rounds' if rounds else 'epoch'}"
    )


def _warnings(
    spec: TrainSpec, schema: Schema, tier: int, shares: Shares, memory: Memory, free: int | None
) -> list[str]:
    found = []
    if tier > 0 and spec.matformer.ffn_rescale == 0:
        found.append(
            "ffn_rescale is 0: a slice puts out less than the full model, and helps it little; 1.0 measured best"
        )
    if tier > 0 and shares.helper:
        found.append(
            f"helper mode keeps the full model in memory, {mib(4 * schema.num_parameters(0))} of weights for "
            f"the slice's {mib(4 * schema.num_parameters(tier))}: where that is too much, join a run without it"
        )
    if free is not None and memory.total > free:
        other = fitting_tier(spec, schema, tier, free)
        found.append(
            "there is less memory free than these tensors need: "
            + (f"leave, and join with --tier {other}" if other is not None else "free some, or it will fail")
        )
    return found


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
