"""`upload` and `download`: checkpoints to and from the Hub and object stores."""

from __future__ import annotations

import json as jsonlib
import shutil
from pathlib import Path
from typing import Annotated

import typer

from psyche_train.cli import exit_codes, output
from psyche_train.cli.options import JsonOpt
from psyche_train.cli.shell import add_commands
from psyche_train.cli.slice import CheckpointArg
from psyche_train.errors import PsycheError


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add_commands(
        app,
        ("upload", upload, "upload ~/psyche/demo hub:my-org/demo-model"),
        ("download", download, "download hub:my-org/demo-model runs/model"),
    )


def upload(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A checkpoint directory or a member's state directory."),
    ],
    to: Annotated[
        str,
        typer.Argument(
            metavar="TO", help="hub:ORG/NAME[@BRANCH], s3://BUCKET/PATH, gs://..., any fsspec URL."
        ),
    ],
    message: Annotated[
        str, typer.Option("--message", "-m", help="Of the commit on the Hub.")
    ] = "Upload a checkpoint",
    private: Annotated[bool, typer.Option("--private", help="If the Hub repository is created.")] = False,
    json: JsonOpt = False,
) -> None:
    """Upload a checkpoint: its weights, configuration, tokenizer, manifest and slices; nothing of a member's own.

    Going on where an earlier try stopped. Prints a reference that names exactly what was uploaded.
    """
    from psyche_train.checkpoints.locate import checkpoint_at
    from psyche_train.checkpoints.remote import publish

    source = checkpoint_at(checkpoint)
    output.note(f"uploading {source} to {to}")
    reference = publish(source, to, message=message, private=private)
    output.data(jsonlib.dumps({"checkpoint": str(source), "uploaded": reference}) if json else reference)


def download(
    source: CheckpointArg,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Directory to write; must not be there yet.")],
    tier: Annotated[
        int, typer.Option("--tier", min=0, max=16, help="Fetch only this tier, where it is by itself.")
    ] = 0,
    json: JsonOpt = False,
) -> None:
    """Download a checkpoint and verify every file against its manifest."""
    from psyche_train.checkpoints.remote import fetch

    target = out.expanduser()
    if target.exists():
        raise PsycheError(
            f"{target} is there already", "move it away, or choose another directory", exit_codes.USAGE
        )
    output.note(f"fetching {source}")
    found = fetch(source, tier=tier)
    beside = target.with_name(f".new-{target.name}")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(found, beside)
    beside.rename(target)
    output.data(jsonlib.dumps({"source": source, "path": str(target)}) if json else str(target))
