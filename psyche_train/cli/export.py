"""`export`: a tier as an ordinary Hugging Face model."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from psyche_train.cli import exit_codes, output
from psyche_train.cli.options import JsonOpt
from psyche_train.cli.shell import add_commands
from psyche_train.cli.slice import CheckpointArg, ShardOpt
from psyche_train.errors import PsycheError

DTYPES = ("fp32", "bf16", "fp16")


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add_commands(app, ("export", export, "export ~/psyche/demo runs/small --tier 1 --dtype bf16"))


def export(
    checkpoint: CheckpointArg,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Directory to write; must not be there yet.")],
    tier: Annotated[
        int | None, typer.Option("--tier", min=0, max=16, help="Which tier; else what the checkpoint holds.")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="fp32, bf16 or fp16.")] = "fp32",
    ffn_rescale: Annotated[
        float | None,
        typer.Option("--ffn-rescale", min=0, max=8, help="The run's; else as the checkpoint says, or 1."),
    ] = None,
    shard_gb: ShardOpt = 5.0,
    json: JsonOpt = False,
) -> None:
    """Write a tier of a checkpoint as an ordinary model that transformers and vLLM open.

    The factor of a slice's feed-forward layers goes into their weights; in fp32 the logits stay the same, bit
    for bit. An export says that it is one, and is refused for training.
    """
    if dtype not in DTYPES:
        raise PsycheError(f"--dtype: {dtype!r} is none of {', '.join(DTYPES)}", exit_code=exit_codes.USAGE)
    from psyche_train.checkpoints.remote import fetch
    from psyche_train.matformer.export import export_model

    done = export_model(
        fetch(checkpoint, tier=tier or 0),
        out.expanduser(),
        tier=tier,
        dtype=dtype,  # type: ignore[arg-type]
        ffn_rescale=ffn_rescale,
        shard_bytes=int(shard_gb * 1e9),
        progress=lambda what: output.note(what),
    )
    tables: dict[str, Any] = {**dataclasses.asdict(done), "path": str(done.path)}
    if json:
        output.data(jsonlib.dumps(tables, indent=2))
    else:
        tables["parameters"] = f"{done.parameters:,}"
        tables["num_bytes"] = f"{done.num_bytes:,}"
        for line in output.pairs({key.replace("_", " "): value for key, value in tables.items()}):
            output.data(line)
    if not done.tokenizer:
        output.warn(
            "the checkpoint has no tokenizer, so the export has none: add the one that the data was made with"
        )
