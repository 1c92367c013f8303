"""Read documents: text files, JSON lines, Parquet files, data sets in the Hub's layout.

A document is UTF-8 bytes or a list of tokens. Every input is a list of parts (files); the documents of a part come
in a fixed order and can be taken up anywhere, so that an interrupted preparation goes on where it was.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from psyche_train.data.errors import DataError

MAX_TEXT_BYTES = 8 << 20
"""A longer text file is cut into several documents, at the ends of lines, so that memory stays bounded."""

JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz")
TEXT_SUFFIXES = (
    ".txt",
    ".md",
    ".rst",
    ".py",
    ".c",
    ".h",
    ".rs",
    ".java",
    ".js",
    ".ts",
    ".html",
    ".tex",
    ".csv",
)
ROWS_PER_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Document:
    """One document, and what a message calls it."""

    where: str
    content: bytes | list[int]
    labels: list[int] | None = None
    ends: bool = True
    """Whether the next document is another one, and not the rest of this."""


class Part(Protocol):
    """One file, or one split of a data set."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def size(self) -> int:
        """In bytes, for the progress shown; 0 where it is not known."""
        ...

    def documents(self, skip: int) -> Iterator[Document]:
        """The documents from number `skip` on.

        Raises:
            DataError: the file is not what it should be; names it and the place.
        """
        ...


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a table hold what."""

    content: str = "text"
    labels: str | None = None

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [self.content, *([self.labels] if self.labels else [])]

    def document(self, row: Any, where: str) -> Document:
        """Make a document of a row.

        Raises:
            DataError: a column is missing, or holds something else.
        """
        if not isinstance(row, dict) or self.content not in row:
            known = ", ".join(map(str, row)) if isinstance(row, dict) else "no columns"
            raise DataError(f"{where} has no column {self.content!r} (it has {known}): name it with --column")
        content = row[self.content]
        if content is None:
            content = ""
        if isinstance(content, str):
            try:
                return Document(where, content.encode())
            except UnicodeEncodeError as error:
                raise DataError(f"{where}: {self.content!r} is no valid text: {error.reason}") from None
        labels = row.get(self.labels) if self.labels else None
        tokens = _whole_numbers(content, where, self.content)
        if any(not 0 <= token < 1 << 32 for token in tokens):
            raise DataError(f"{where}: {self.content!r} holds a token that is not in 0..2**32")
        return Document(
            where, tokens, None if labels is None else _whole_numbers(labels, where, str(self.labels))
        )


def _whole_numbers(value: Any, where: str, column: str) -> list[int]:
    numbers = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(numbers, list) or any(type(number) is not int for number in numbers):
        shown = type(value).__name__
        raise DataError(f"{where}: {column!r} holds {shown}, neither text nor a list of whole numbers")
    return numbers


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file of text: one document, or several if it is long."""

    path: Path
    name: str
    size: int

    def documents(self, skip: int) -> Iterator[Document]:
        """See `Part.documents`."""
        rest = b""
        number = 0
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                while True:
                    block = file.read(MAX_TEXT_BYTES - len(rest))
                    text = rest + block
                    if not text:
                        return
                    cut = len(text) if len(text) < MAX_TEXT_BYTES else _cut(text)
                    text, rest = text[:cut], text[cut:]
                    if number >= skip:
                        yield Document(str(self.path), text, ends=file.tell() >= size and not rest)
                    number += 1
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from None


def _cut(text: bytes) -> int:
    """Where to cut a block of text: after its last line, else before a character of UTF-8."""
    if (cut := text.rfind(b"\n") + 1) > 0:
        return cut
    cut = len(text) - 1
    while cut > len(text) - 4 and text[cut] & 0xC0 == 0x80:
        cut -= 1
    return max(1, cut)


@dataclass(frozen=True, slots=True)
class JsonFile:
    """A file with one JSON object a line."""

    path: Path
    name: str
    size: int
    columns: Columns

    def documents(self, skip: int) -> Iterator[Document]:
        """See `Part.documents`."""
        opened: Any = gzip.open if self.path.suffix == ".gz" else open
        try:
            with opened(self.path, "rb") as file:
                number = -1
                for at, line in enumerate(file, start=1):
                    if not line.strip():
                        continue
                    number += 1
                    if number < skip:
                        continue
                    where = f"{self.path}, line {at}"
                    try:
                        row = json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise DataError(f"{where} is not JSON: {error}") from None
                    yield self.columns.document(row, where)
        except (OSError, EOFError) as error:
            raise DataError(f"{self.path} cannot be read: {error}") from None


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """A Parquet file, read a batch of rows at a time."""

    path: Path
    name: str
    size: int
    columns: Columns

    def documents(self, skip: int) -> Iterator[Document]:
        """See `Part.documents`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path, memory_map=True) as file:
                missing = [name for name in self.columns.names if name not in file.schema_arrow.names]
                if missing:
                    raise DataError(
                        f"{self.path} has no column {missing[0]!r} (it has {', '.join(file.schema_arrow.names)}): "
                        "name another column"
                    )
                number = 0
                for batch in file.iter_batches(ROWS_PER_BATCH, columns=self.columns.names):
                    if number + batch.num_rows > skip:
                        rows = batch.slice(max(0, skip - number)).to_pylist()
                        for at, row in enumerate(rows, start=max(number, skip)):
                            yield self.columns.document(row, f"{self.path}, row {at}")
                    number += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self.path} cannot be read as Parquet: {error}") from None


PIN_S = 30.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubSplit:
    """One split of a Hugging Face data set, streamed."""

    repo_id: str
    config: str
    split: str
    revision: str
    columns: Columns
    size: int = 0

    @property
    def name(self) -> str:
        """What messages call it; it names the revision, so that data of another one are another preparation."""
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.repo_id}{at}, split {self.split}"

    def documents(self, skip: int) -> Iterator[Document]:
        """See `Part.documents`."""
        try:
            rows = self._open()
            if skip:
                rows = rows.skip(skip)
            for at, row in enumerate(rows, start=skip):
                yield self.columns.document(row, f"{self.name}, row {at}")
        except DataError:
            raise
        except Exception as error:  # datasets, fsspec, pyarrow and httpx raise dozens of kinds
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DataError(
                f"data set {self.name} cannot be read: {first}. Check repo_id, name, split and revision, and the "
                "network; a repeated try goes on where this one ended"
            ) from error

    def _open(self) -> Any:
        import datasets

        folder = Path(self.repo_id).expanduser()
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(str(folder))
            if isinstance(found, datasets.DatasetDict):
                if self.split not in found:
                    raise DataError(f"{self.repo_id} has no split {self.split!r}, it has {', '.join(found)}")
                found = found[self.split]
            return found.to_iterable_dataset()
        return datasets.load_dataset(
            str(folder) if folder.is_dir() else self.repo_id,
            self.config or None,
            split=self.split,
            revision=self.revision or None,
            streaming=True,
        )


def pinned(repo_id: str, revision: str) -> str:
    """The commit that a branch or tag of a data set on the Hub names now; a folder has none: the revision as it is.

    Raises:
        DataError: there is no such data set or revision, or the Hub cannot be reached.
    """
    if Path(repo_id).expanduser().is_dir() or _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    problems = (HFValidationError, HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError)
    try:
        found = (
            HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
            .dataset_info(repo_id, revision=revision or None, timeout=PIN_S)
            .sha
        )
    except problems as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            f"data set {repo_id} cannot be read: its commit is not known: {first}. Check repo_id and revision, and the "
            "network, or name a commit as the revision"
        ) from error
    if found is None or not _COMMIT.fullmatch(found):
        raise DataError(f"data set {repo_id}: the Hub named no commit for {revision or 'it'}")
    return found


def find_parts(inputs: Sequence[Path], columns: Columns) -> list[Part]:
    """The files behind a list of files and folders; a folder's files in the order of their paths.

    Raises:
        DataError: something is missing, or of a kind that is not read.
    """
    parts: list[Part] = []
    for given in inputs:
        if given.is_dir():
            files = sorted(
                (f for f in given.rglob("*") if f.is_file() and not _is_hidden(f, given)),
                key=lambda f: f.relative_to(given).as_posix(),
            )
            found = [
                p for f in files if (p := _part(f, f.relative_to(given).as_posix(), columns)) is not None
            ]
            if not found:
                raise DataError(
                    f"{given} holds no files that are read ({', '.join((*JSON_SUFFIXES, '.parquet'))}, text)"
                )
            parts += found
        elif given.is_file():
            parts.append(
                _part(given, given.name, columns) or TextFile(given, given.name, given.stat().st_size)
            )
        else:
            raise DataError(f"{given} is neither a file nor a folder")
    return parts


def _part(path: Path, name: str, columns: Columns) -> Part | None:
    size = path.stat().st_size
    lower = path.name.lower()
    if lower.endswith(JSON_SUFFIXES):
        return JsonFile(path, name, size, columns)
    if lower.endswith(".parquet"):
        return ParquetFile(path, name, size, columns)
    return TextFile(path, name, size) if lower.endswith(TEXT_SUFFIXES) else None


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
