"""The box that a client shows at its start: what was asked for, and what it really trains."""

from __future__ import annotations

from dataclasses import dataclass

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from psyche_train.matformer.loading import Strategy
from psyche_train.models.schema import Schema
from psyche_train.spec import InitCheckpoint, TrainSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupInfo:
    """What a member holds."""

    checkpoint: str
    strategy: Strategy
    sliced: bool
    """The weights were read from a checkpoint that was already a slice."""
    asked_tier: int
    effective_tier: int
    ffn_active: int
    ffn_full: int
    parameters: int
    parameters_full: int
    ffn_rescale: float
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: TrainSpec, schema: Schema, tier: int, strategy: Strategy) -> StartupInfo:
        """Describe a member before its weights are loaded."""
        chosen = spec.checkpoint.chosen
        name = f"Init, seed {chosen.seed}" if isinstance(chosen, InitCheckpoint) else spec.checkpoint.kind
        warnings = []
        if tier > 0 and spec.matformer.ffn_rescale == 0:
            warnings.append(
                "ffn_rescale is 0: a slice puts out less than the full model, and helps it little; "
                "1.0 measured best"
            )
        return cls(
            checkpoint=name,
            strategy=strategy,
            sliced=False,
            asked_tier=tier,
            effective_tier=tier,
            ffn_active=schema.family.ffn_width >> tier,
            ffn_full=schema.family.ffn_width,
            parameters=schema.num_parameters(tier),
            parameters_full=schema.num_parameters(0),
            ffn_rescale=spec.matformer.ffn_rescale,
            warnings=tuple(warnings),
        )


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
    percent = 100 * info.ffn_active / info.ffn_full
    share = 100 * info.parameters / info.parameters_full
    lines = [
        ("checkpoint", info.checkpoint),
        ("load strategy", info.strategy),
        ("already sliced", "yes" if info.sliced else "no"),
        ("asked tier", str(info.asked_tier)),
        ("effective tier", f"{info.effective_tier} {'✓' if matches else '✗ differs from what was asked'}"),
        ("helper", "off"),
        ("FFN width", f"{info.ffn_active} / {info.ffn_full} ({percent:.1f} %)"),
        ("FFN output", f"x {2.0 ** (info.effective_tier * info.ffn_rescale):g}"),
        ("parameters", f"{info.parameters:,} / {info.parameters_full:,} ({share:.1f} %)"),
    ]
    if not matches:
        lines.append(("warning", "leave, and join again with the tier that you want to train"))
    return lines + [("warning", warning) for warning in info.warnings]
