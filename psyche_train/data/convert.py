"""`Hub` and `Parquet`: converted once into the cache, by the code behind `psyche-train prepare-data`.

The converted data are opened like prepared ones, and have to have the run's manifest: another version of the data
set, of the tokenizer or of a library that gives other tokens is refused before the first step.
"""

from __future__ import annotations

from pathlib import Path

from psyche_train.data.cache import cache_folder
from psyche_train.data.documents import Columns, HubSplit, ParquetFile, Part, pinned
from psyche_train.data.encoders import load_encoder
from psyche_train.data.errors import DataError
from psyche_train.data.local import open_prepared
from psyche_train.data.prepare import Options, prepare
from psyche_train.data.shards import ShardTokens
from psyche_train.spec.data import FixedSource, HubData, ParquetData


def open_converted(location: HubData | ParquetData, window: int) -> ShardTokens:
    """Convert what is not in the cache yet, and open it.

    Raises:
        DataError: it cannot be read, or gives other tokens than the run's.
    """
    parts = _hub(location) if isinstance(location, HubData) else _parquet(location)
    encoder = load_encoder(location.tokenizer)
    whole = isinstance(location, ParquetData) and location.sequences
    options = Options(
        end_of_text=encoder.end_of_text,
        sequence_tokens=window if whole else 0,
        token_bytes=4 if encoder.digest == "bytes" and not whole and _holds_tokens(parts[0]) else None,
        max_tokens=location.max_tokens if isinstance(location, HubData) else 0,
    )
    key = location.model_dump(mode="json", exclude={"manifest", "validation_fraction"})
    seen = [[part.name, part.size, _changed(part)] for part in parts]
    folder = cache_folder(
        "converted", [key, encoder.digest, options.sequence_tokens, options.token_bytes, seen]
    )
    manifest = prepare(parts, encoder, folder, options)
    if location.manifest and manifest.id.hex() != location.manifest:
        raise DataError(
            f"{parts[0].name} gives manifest {manifest.id.hex()[:16]}, the run's data have {location.manifest[:16]}: "
            "use the revision, the files and the tokenizer of the run's creator"
        )
    return open_prepared(folder, location.manifest)


def pin_revision(source: FixedSource) -> FixedSource:
    """A source with its revision replaced by the commit that it names now: all members then read the same data.

    Raises:
        DataError: there is no such data set or revision, or the Hub cannot be reached.
    """
    if not isinstance(source, HubData):
        return source
    return source.model_copy(update={"revision": pinned(source.repo_id, source.revision)})


def _hub(location: HubData) -> list[Part]:
    return [
        HubSplit(location.repo_id, location.name, location.split, location.revision, Columns(location.column))
    ]


def _parquet(location: ParquetData) -> list[Part]:
    path = Path(location.path).expanduser()
    columns = Columns(location.column, location.labels_column)
    if path.is_dir():
        files = sorted(
            (file for file in path.rglob("*.parquet") if file.is_file()), key=lambda f: f.as_posix()
        )
        if not files:
            raise DataError(f"{path} holds no .parquet files")
    elif path.is_file():
        files = [path]
    else:
        raise DataError(
            f"{path} is neither a file nor a folder here: get the run's data, or correct the path"
        )
    return [ParquetFile(file, file.name, file.stat().st_size, columns) for file in files]


def _holds_tokens(part: Part) -> bool:
    first = next(iter(part.documents(0)), None)
    return first is not None and not isinstance(first.content, bytes)


def _changed(part: Part) -> int:
    return part.path.stat().st_mtime_ns if isinstance(part, ParquetFile) else 0
