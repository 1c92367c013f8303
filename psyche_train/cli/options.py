"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from psyche_train.cli import exit_codes
from psyche_train.errors import PsycheError

JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DeviceOpt = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
ThreadsOpt = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; else torch's choice.")]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of [model.LLM], such as max_seq_len=64."),
]
ConfigArg = Annotated[Path, typer.Argument(metavar="CONFIG", help="A run's TOML file.")]


def parse_tiers(text: str) -> list[int]:
    """The tiers of `--tiers 0,1,1`.

    Raises:
        PsycheError: it is not a list of small numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= 2 for part in parts):
        raise PsycheError(
            f"--tiers: {text!r} is not a list of tiers, one for each member",
            "for example --tiers 0,1,1",
            exit_codes.USAGE,
        )
    return [int(part) for part in parts]


def check_device(name: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        PsycheError: says which ones there are.
    """
    from psyche_train.devices import choose_device

    try:
        choose_device(name)
    except ValueError as exc:
        raise PsycheError(f"--device: {exc}", exit_code=exit_codes.USAGE) from None
