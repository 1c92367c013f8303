"""`psyche-train prepare-data`: files or a data set into shards with hashes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from psyche_train.cli import output
from psyche_train.cli.options import JsonOpt
from psyche_train.cli.shell import add_commands

if TYPE_CHECKING:
    from psyche_train.data.documents import Part
    from psyche_train.data.manifest import DataManifest
    from psyche_train.data.prepare import Progress

LINE_EVERY_S = 15.0
"""Without a terminal, a line so often."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_commands(
        app, ("prepare-data", prepare_data, "prepare-data books/ --tokenizer tokenizer.json --out data/")
    )


def prepare_data(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Text, .jsonl, .jsonl.gz or .parquet files, folders of them, or with --dataset a data set.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the shards; empty, or begun by this command.")
    ],
    tokenizer: Annotated[
        str, typer.Option(help="bytes, a tokenizer.json, a folder with one, or a name on the Hub.")
    ] = "bytes",
    column: Annotated[
        str, typer.Option(help="Column or key with the text, or with lists of tokens.")
    ] = "text",
    labels: Annotated[
        str | None, typer.Option(help="With --sequences: column with labels, -100 where nothing is learned.")
    ] = None,
    sequences: Annotated[
        int, typer.Option(min=0, help="Make every document one padded sample: the run's max_seq_len.")
    ] = 0,
    end_of_text: Annotated[
        str, typer.Option(help="Token after every document: auto (the tokenizer's), none, or a number.")
    ] = "auto",
    token_bytes: Annotated[
        int | None, typer.Option(help="Width of a token: 1, 2 or 4; else the narrowest.")
    ] = None,
    shard_mib: Annotated[int, typer.Option(min=1, max=1024, help="Length of a shard in MiB.")] = 64,
    max_tokens: Annotated[
        int, typer.Option(min=0, help="Stop after the document that reaches so many; 0: take all.")
    ] = 0,
    dataset: Annotated[
        bool, typer.Option("--dataset", help="INPUT is a Hugging Face data set: a name or a folder.")
    ] = False,
    name: Annotated[str, typer.Option(help="With --dataset: its configuration.")] = "",
    split: Annotated[str, typer.Option(help="With --dataset.")] = "train",
    revision: Annotated[str, typer.Option(help="With --dataset.")] = "",
    json: JsonOpt = False,
) -> None:
    """Turn documents into shards of tokens with a manifest of hashes, for Local, Http or Peers.

    Interrupted anywhere, the same command goes on where it was; the result is the same, byte for byte. Prints
    the table to paste into a run's TOML.
    """
    from psyche_train.data.documents import Columns, HubSplit, find_parts, pinned
    from psyche_train.data.encoders import load_encoder
    from psyche_train.data.errors import DataError
    from psyche_train.data.prepare import Options, begun_with, prepare

    columns = Columns(column, labels)
    if labels is not None and not sequences:
        raise DataError("--labels needs --sequences: in a stream of text every token is a target")
    parts: list[Part]
    if dataset:
        commits = [revision or begun_with(out, given) for given in inputs]
        parts = [
            HubSplit(given, name, split, pinned(given, commit), columns)
            for given, commit in zip(inputs, commits, strict=True)
        ]
    else:
        parts = find_parts([Path(given).expanduser() for given in inputs], columns)
    encoder = load_encoder(tokenizer)
    options = Options(
        shard_bytes=shard_mib << 20,
        end_of_text=_end(end_of_text, encoder.end_of_text),
        sequence_tokens=sequences + 1 if sequences else 0,
        token_bytes=token_bytes,
        max_tokens=max_tokens,
    )
    with _shown(parts) as report:
        manifest = prepare(parts, encoder, out, options, report=report)
    values = _values(manifest, out)
    output.data_json(values) if json else output.data(_toml(manifest, out))


def _end(asked: str, own: int | None) -> int | None:
    from psyche_train.data.errors import DataError

    if asked in ("auto", "none"):
        return own if asked == "auto" else None
    if not (asked.isascii() and asked.isdigit() and len(asked) < 10):
        raise DataError(f"--end-of-text {asked}: allowed are auto, none and the number of a token")
    return int(asked)


def _values(manifest: DataManifest, out: Path) -> dict[str, Any]:
    return {
        "folder": str(out),
        "manifest": manifest.id.hex(),
        "tokens": manifest.num_tokens,
        "bytes": manifest.num_bytes,
        "shards": len(manifest.shards),
        "token_bytes": manifest.token_bytes,
        "highest_token": manifest.highest_token,
        "sequence_tokens": manifest.sequence_tokens,
    }


def _toml(manifest: DataManifest, out: Path) -> str:
    import json

    path, name = json.dumps(str(out.resolve())), manifest.id.hex()
    least = f"# {manifest.num_tokens} tokens in {len(manifest.shards)} shards; vocab_size of at least "
    lines = [
        least + str(manifest.highest_token + 1),
        "[model.LLM.data_location.Peers]  # members fetch the shards from each other; or Local, with the same keys",
        f"path = {path}",
        f'manifest = "{name}"',
        "",
        "# or from a web server that serves the folder:",
        "# [model.LLM.data_location.Http]",
        f'# manifest = "{name}"',
        '# location.Folder = "https://..."',
    ]
    if manifest.sequence_tokens:
        lines.insert(1, f"# samples: max_seq_len = {manifest.sequence_tokens - 1} is needed")
    return "\n".join(lines)


@contextmanager
def _shown(parts: list[Part]) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on a terminal, otherwise a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(parts)
        return
    sizes = [max(1, part.size) for part in parts]
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("preparing", total=sum(sizes), told="")

        def report(progress: Any) -> None:
            told = f"{progress.tokens:,} tokens, {output.plural(progress.shards, 'shard')}"
            done = sum(sizes[: progress.part])
            bar.update(
                task, completed=done, told=told, description=output.one_line(parts[progress.part].name[-40:])
            )

        yield report


def _lines(parts: list[Part]) -> Callable[[Progress], None]:
    said = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal said
        if time.monotonic() >= said + LINE_EVERY_S:
            said = time.monotonic()
            output.note(
                f"{parts[progress.part].name}: {progress.tokens:,} tokens in "
                f"{output.plural(progress.shards, 'shard')}, file {progress.part + 1} of {progress.parts}"
            )

    return report
