"""`slice`: cut a full checkpoint into directories of its tiers."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from psyche_train.cli import exit_codes, output
from psyche_train.cli.options import JsonOpt, parse_tiers
from psyche_train.cli.shell import add_commands
from psyche_train.errors import PsycheError

CheckpointArg = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A checkpoint directory, a member's state directory, hub:ORG/NAME[@REVISION], or an fsspec URL.",
    ),
]
ShardOpt = Annotated[
    float, typer.Option("--shard-gb", min=0.000001, help="Weights above this many GB are split into files.")
]


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add_commands(app, ("slice", slice_, "slice runs/model --tiers 1,2 --out runs/model-tiers"))


def slice_(
    checkpoint: CheckpointArg,
    tiers: Annotated[str, typer.Option("--tiers", metavar="T,T,..", help="Which tiers, from 1 up.")] = "1,2",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Gets tier1/, tier2/, ...; else the checkpoint itself."),
    ] = None,
    shard_gb: ShardOpt = 5.0,
    json: JsonOpt = False,
) -> None:
    """Cut a full checkpoint into directories of its tiers, for members that load with `sliced` or `auto`.

    Each holds exactly the bits of the full checkpoint's prefix, and proves it with hashes in its manifest. One
    tensor is in memory at a time. A command that was stopped goes on where it was; slices that are there and
    whole stay; anything else that is there is refused.
    """
    wanted = parse_tiers(tiers)
    if min(wanted) < 1:
        raise PsycheError(
            "--tiers: tier 0 is the whole checkpoint, there is nothing to cut",
            "give 1 and up",
            exit_codes.USAGE,
        )
    from psyche_train.checkpoints.remote import Reference, fetch
    from psyche_train.matformer.slice import cut_checkpoint

    reference = Reference.parse(checkpoint)
    if out is None and (reference.repo_id is not None or reference.is_url):
        raise PsycheError(
            f"{checkpoint} is fetched into a cache, where slices would be lost",
            "say where they belong with --out DIR",
            exit_codes.USAGE,
        )
    source = fetch(checkpoint)
    target = out.expanduser() if out is not None else source
    slices = cut_checkpoint(
        source, target, wanted, shard_bytes=int(shard_gb * 1e9), progress=lambda what: output.note(what)
    )
    if json:
        rows = [
            {
                "tier": part.tier,
                "path": str(part.path),
                "width": part.width,
                "parameters": part.parameters,
                "bytes": part.num_bytes,
                "was_there": part.was_there,
            }
            for part in slices
        ]
        output.data(jsonlib.dumps({"checkpoint": str(source), "slices": rows}, indent=2))
        return
    table = [[s.tier, s.width, f"{s.parameters:,}", f"{s.num_bytes / 1e6:.2f}", str(s.path)] for s in slices]
    for line in output.table(["tier", "FFN width", "parameters", "MB", "directory"], table):
        output.data(line)
