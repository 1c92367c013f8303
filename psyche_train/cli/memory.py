"""`memory`: what a member of each tier keeps in memory."""

from __future__ import annotations

import typer

from psyche_train.cli import output
from psyche_train.cli.options import ConfigArg, JsonOpt, SetOpt
from psyche_train.cli.shell import add_commands


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add_commands(app, ("memory", memory, "memory config/demo.toml --set matformer.max_tier=2"))


def memory(config: ConfigArg, set_: SetOpt = None, json: JsonOpt = False) -> None:
    """Show what a member of each tier keeps in memory: weights, buffers, momenta, and a step's gradient.

    Computed from the shapes, in MiB. Activations, and what encoding and folding need for a moment, come on top.
    """
    from psyche_train.matformer.helper import Shares
    from psyche_train.matformer.memory import MIB, expected
    from psyche_train.resolve import schema_of
    from psyche_train.run_file import load_run_file

    run_file, warnings = load_run_file(config, set_ or ())
    for warning in warnings:
        output.warn(warning)
    spec = run_file.spec
    schema = schema_of(spec)
    shares = Shares(spec, schema)
    tiers = [(tier, expected(spec, schema, tier, shares)) for tier in range(schema.max_tier + 1)]
    if json:
        output.data_json(
            [
                {
                    "tier": tier,
                    "parameters_trained": shares.num_trained(tier),
                    "weights_bytes": found.weights,
                    "buffers_bytes": found.own,
                    "momenta_bytes": found.folded,
                    "gradient_bytes": found.gradient,
                    "total_bytes": found.total,
                }
                for tier, found in tiers
            ]
        )
        return
    whole = tiers[0][1].total
    lines = output.table(
        ("tier", "parameters", "weights", "buffers", "momenta", "gradient", "MiB in all", "of tier 0"),
        [
            (
                tier,
                shares.num_trained(tier),
                *(
                    f"{size / MIB:.1f}"
                    for size in (found.weights, found.own, found.folded, found.gradient, found.total)
                ),
                f"{100 * found.total / whole:.0f} %",
            )
            for tier, found in tiers
        ],
    )
    for line in lines:
        output.data(line)
