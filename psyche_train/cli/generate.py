"""`generate`: continue a text with a checkpoint's model."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from psyche_train.cli import exit_codes, output
from psyche_train.cli.options import DeviceOpt, JsonOpt, ThreadsOpt, check_device
from psyche_train.cli.shell import add_commands
from psyche_train.errors import PsycheError

CheckpointArg = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Directory of a checkpoint or an export, a member's state folder, or what train --out left.",
    ),
]
TierOpt = Annotated[
    int | None,
    typer.Option("--tier", min=0, max=16, help="Take this slice of a training checkpoint; else all of it."),
]


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add_commands(app, ("generate", generate, "generate runs/local --prompt 'def main(' --max-tokens 200"))


def generate(
    checkpoint: CheckpointArg,
    prompt: Annotated[
        str, typer.Option("--prompt", metavar="TEXT", help="The text to continue; - reads standard input.")
    ] = "",
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Tokens to add at most.")] = 128,
    temperature: Annotated[
        float, typer.Option("--temperature", help="0: always the likeliest token; 1: as the model says.")
    ] = 0.8,
    top_k: Annotated[int, typer.Option("--top-k", help="Draw from the likeliest K tokens; 0: from all.")] = 0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Draw from the likeliest tokens that together have this chance.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of the draws.")] = 0,
    tier: TierOpt = None,
    device: DeviceOpt = "auto",
    threads: ThreadsOpt = None,
    json: JsonOpt = False,
) -> None:
    """Continue a text with a checkpoint's model, as it is drawn; the same seed gives the same text.

    Characters that would steer the terminal are shown as \\u001b; --json has them as they are.
    """
    from psyche_train.inference.find import find_checkpoint

    path = find_checkpoint(checkpoint)
    check_device(device)
    import torch

    from psyche_train.devices import choose_device
    from psyche_train.inference.checkpoint import open_checkpoint
    from psyche_train.inference.sampling import Sampler, Sampling, continuation
    from psyche_train.inference.tokens import TextStream

    try:
        sampling = Sampling(temperature, top_k, top_p, seed)
    except ValueError as exc:
        raise PsycheError(f"--{exc}", exit_code=exit_codes.USAGE) from None
    if threads is not None:
        torch.set_num_threads(threads)
    text = sys.stdin.read() if prompt == "-" else prompt
    opened = open_checkpoint(path, tier=tier, device=choose_device(device))
    tokens = opened.tokens()
    ids = tokens.encode(text, special=True)
    if not ids:
        ids = [tokens.start if tokens.start is not None else tokens.encode("\n")[0]]
    if worst := [token for token in ids if token >= opened.vocab_size]:
        raise PsycheError(
            f"the tokenizer in {path} gives token {worst[0]}, the model has {opened.vocab_size}",
            "put the model's own tokenizer files there",
            exit_codes.CONFIG,
        )
    if len(ids) > opened.context:
        output.warn(f"the prompt has {len(ids)} tokens; the model sees the last {opened.context}")
    if not json:
        output.note(f"{path}: tier {opened.tier}, {opened.parameters:,} parameters")
        output.piece(text)
    stream, pieces, count, started = TextStream(tokens), [], 0, time.monotonic()
    for token in continuation(
        opened.model,
        ids,
        max_tokens=max_tokens,
        context=opened.context,
        sampler=Sampler(sampling),
        end=tokens.end,
    ):
        count += 1
        pieces.append(stream.push(token))
        if not json:
            output.piece(pieces[-1])
    pieces.append(stream.flush())
    seconds = time.monotonic() - started
    if json:
        output.data_json(
            {
                "checkpoint": str(path),
                "tier": opened.tier,
                "parameters": opened.parameters,
                "prompt": text,
                "text": "".join(pieces),
                "tokens": count,
                "ended": count < max_tokens,
                "seed": seed,
                "seconds": round(seconds, 3),
            }
        )
        return
    output.piece(pieces[-1] + "\n")
    output.note(f"{output.plural(count, 'token')} in {seconds:.1f} s")
