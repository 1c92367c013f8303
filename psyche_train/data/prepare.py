"""Make shards and a manifest of documents: deterministic, and resumable after `kill -9` at any moment.

A folder of prepared data:

| name                     | content                                                                        |
|--------------------------|--------------------------------------------------------------------------------|
| `shard-00000.bin`, ...   | tokens, little-endian, all shards but the last of one length                   |
| `shard-00000.bin.pieces` | length and digests of its pieces (`psyche_train.blobs.Manifest`)               |
| `manifest.json`          | the data's manifest; it is written last, so a folder that has it is complete   |
| `source.json`            | what the data are made of, and how far: after every shard                      |
| `tokenizer.json`, ...    | the tokenizer, if there is one                                                 |
| `README.md`              | a data card, so that the folder can be uploaded to the Hub as it is            |

The same inputs and options give the same bytes wherever it was interrupted: a shard is written under another
name, synced and renamed before `source.json` says so, and the next run begins after the last such shard.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from psyche_train._durable import sync_path
from psyche_train.blobs import PIECE, Manifest
from psyche_train.data.cache import write_whole
from psyche_train.data.documents import Document, Part
from psyche_train.data.encoders import Encoder
from psyche_train.data.errors import DataError
from psyche_train.data.labels import hide, shown
from psyche_train.data.local import read_manifest
from psyche_train.data.manifest import FILE_NAME, PIECES_SUFFIX, DataManifest, ShardEntry, shard_name

SOURCE_NAME = "source.json"
BATCH_BYTES = 4 << 20
BATCH_DOCUMENTS = 512
MAX_SHARD_BYTES = 1 << 30

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Options:
    """What decides the bytes, besides the documents and the tokenizer."""

    shard_bytes: int = 64 << 20
    """Length of a shard; a multiple of 256 KiB."""
    end_of_text: int | None = None
    """Token that is put after every document."""
    sequence_tokens: int = 0
    """Make samples of so many tokens, one a document, instead of a stream."""
    token_bytes: int | None = None
    """Width of a token; None: the narrowest that holds the vocabulary."""
    max_tokens: int = 0
    """Stop after the document that reaches so many; 0: take all."""

    def __post_init__(self) -> None:
        if not PIECE <= self.shard_bytes <= MAX_SHARD_BYTES or self.shard_bytes % PIECE:
            raise DataError(
                f"shards of {self.shard_bytes} bytes: allowed are multiples of {PIECE} up to {MAX_SHARD_BYTES}"
            )
        if self.token_bytes not in (None, 1, 2, 4):
            raise DataError(f"tokens of {self.token_bytes} bytes: allowed are 1, 2 and 4")
        if self.sequence_tokens and not 3 <= self.sequence_tokens <= 1 << 24:
            raise DataError(f"samples of {self.sequence_tokens} tokens: allowed are 3 to {1 << 24}")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a preparation is."""

    part: int
    """Number of the file that is being read."""
    parts: int
    documents: int
    """Of that file."""
    tokens: int
    """Written, all shards together."""
    shards: int


@dataclass
class _Position:
    """After the last complete shard: where the next one begins."""

    part: int = 0
    document: int = 0
    token: int = 0
    """Tokens of that document that are in a shard already."""
    highest: int = 0
    finished: bool = False


def prepare(
    parts: Sequence[Part],
    encoder: Encoder | None,
    out: Path,
    options: Options,
    *,
    report: Callable[[Progress], object] = lambda progress: None,
) -> DataManifest:
    """Write the shards and the manifest of documents, or go on with what an earlier call began.

    Args:
        parts: what to read, in order.
        encoder: for text; None if the documents are lists of tokens.
        out: folder, created if missing.
        report: called now and then.

    Raises:
        DataError: a document cannot be read, the folder holds other data, or the disk refuses.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            _clean_temporaries(out)
            return _Preparation(parts, encoder, out, options, report).run()
    except OSError as error:
        raise DataError(
            f"{out} cannot be written: {error.strerror}. Free some disk space and run the command again: it goes on"
        ) from error


class _Preparation:
    def __init__(
        self,
        parts: Sequence[Part],
        encoder: Encoder | None,
        out: Path,
        options: Options,
        report: Callable[[Progress], object],
    ) -> None:
        self._parts, self._encoder, self._out, self._options, self._report = (
            parts,
            encoder,
            out,
            options,
            report,
        )
        self._width = 4 if options.sequence_tokens else options.token_bytes or _width(encoder)
        self._limit = 1 << (30 if options.sequence_tokens else 8 * self._width)
        if options.end_of_text is not None and options.end_of_text >= self._limit:
            raise DataError(f"--end-of-text {options.end_of_text} does not fit tokens of {self._width} bytes")
        kind = "i" if options.sequence_tokens else "u"
        self._dtype = np.dtype(f"<{kind}{self._width}")
        self._shard_tokens = options.shard_bytes // self._width
        self._made_of: dict[str, Any] = {
            "parts": [[part.name, part.size] for part in parts],
            "encoder": encoder.digest if encoder else "",
            "options": {**asdict(options), "token_bytes": self._width},
        }
        self._entries: list[ShardEntry] = []
        self._at = _Position()

    def run(self) -> DataManifest:
        """Prepare, or go on."""
        if self._resume():
            return read_manifest(self._out / FILE_NAME)
        buffer = np.empty(self._shard_tokens, dtype=self._dtype)
        filled, highest = 0, self._at.highest
        total = sum(entry.length for entry in self._entries) // self._width
        for part, document, tokens in self._tokens(self._at):
            taken = self._at.token if (part, document) == (self._at.part, self._at.document) else 0
            if len(tokens):
                highest = max(highest, int(shown(tokens).max()))
            while taken < len(tokens):
                room = min(self._shard_tokens - filled, len(tokens) - taken)
                buffer[filled : filled + room] = tokens[taken : taken + room]
                filled, taken = filled + room, taken + room
                if filled == self._shard_tokens:
                    self._write_shard(buffer)
                    total, filled = total + self._shard_tokens, 0
                    self._note(_Position(part, document, taken, highest))
            self._report(Progress(part, len(self._parts), document, total + filled, len(self._entries)))
            if self._options.max_tokens and total + filled >= self._options.max_tokens:
                break
        if filled:
            self._write_shard(buffer[:filled])
        if not self._entries:
            raise DataError("the inputs hold no text: nothing was prepared")
        return self._finish(highest)

    def _tokens(self, start: _Position) -> Iterator[tuple[int, int, Numbers]]:
        """`(part, document, tokens)` from a position on, encoded in batches."""
        batch: list[tuple[int, int, Document]] = []
        num_bytes = 0
        for number, part in enumerate(self._parts):
            if number < start.part:
                continue
            skip = start.document if number == start.part else 0
            for at, document in enumerate(part.documents(skip), start=skip):
                batch.append((number, at, document))
                num_bytes += len(document.content)
                if num_bytes >= BATCH_BYTES or len(batch) >= BATCH_DOCUMENTS:
                    yield from self._encoded(batch)
                    batch, num_bytes = [], 0
        yield from self._encoded(batch)

    def _encoded(self, batch: Sequence[tuple[int, int, Document]]) -> Iterator[tuple[int, int, Numbers]]:
        texts = [document.content for _, _, document in batch if isinstance(document.content, bytes)]
        if texts and self._encoder is None:
            raise DataError(f"{batch[0][2].where} holds text: name a tokenizer")
        encoded = iter(self._encode(texts, batch) if texts and self._encoder else [])
        for part, number, document in batch:
            if isinstance(document.content, bytes):
                tokens = next(encoded)
            else:
                tokens = np.array(document.content, dtype=np.int64)
            yield part, number, self._shaped(document, tokens)

    def _encode(self, texts: list[bytes], batch: Sequence[tuple[int, int, Document]]) -> list[Numbers]:
        assert self._encoder is not None
        try:
            return self._encoder.encode(texts)
        except DataError as error:
            first, last = batch[0][2].where, batch[-1][2].where
            where = first if first == last else f"between {first} and {last}"
            raise DataError(f"{where}: {error}") from None

    def _shaped(self, document: Document, tokens: Numbers) -> Numbers:
        """A document's tokens as they are written: with their end, or as one sample."""
        if len(tokens) and (high := int(tokens.max())) >= self._limit:
            raise DataError(
                f"{document.where}: token {high} does not fit {self._width} bytes: use wider tokens (--token-bytes)"
            )
        if self._options.sequence_tokens:
            return self._sample(document, tokens)
        end = self._options.end_of_text
        return np.append(tokens, end) if len(tokens) and document.ends and end is not None else tokens

    def _sample(self, document: Document, tokens: Numbers) -> Numbers:
        length, labels = self._options.sequence_tokens, document.labels
        if len(tokens) > length:
            raise DataError(
                f"{document.where} has {len(tokens)} tokens, samples have {length}: cut it, or use a larger max_seq_len"
            )
        hidden = np.zeros(len(tokens), dtype=bool)
        if labels is not None:
            if len(labels) != len(tokens):
                raise DataError(f"{document.where} has {len(labels)} labels for {len(tokens)} tokens")
            targets = np.array(labels, dtype=np.int64)
            hidden = targets == -100
            if (wrong := (targets != tokens) & ~hidden).any():
                at = int(np.flatnonzero(wrong)[0])
                raise DataError(
                    f"{document.where}: label {at} is {labels[at]}, the token there is {tokens[at]}: labels are the "
                    "tokens themselves (not shifted), or -100"
                )
        if hidden[1:].all():
            raise DataError(
                f"{document.where} has nothing to learn: all of its labels are -100. Leave it out"
            )
        row = hide(np.full(length, self._options.end_of_text or 0, dtype=np.int64))
        row[: len(tokens)] = np.where(hidden, hide(tokens), tokens)
        return row

    def _resume(self) -> bool:
        """Take up what is there; True if it is complete.

        Raises:
            DataError: the folder holds data that were made of something else.
        """
        path = self._out / SOURCE_NAME
        if not path.exists():
            others = [file.name for file in self._out.iterdir() if not file.name.startswith(".")]
            if others:
                raise DataError(f"{self._out} holds other files ({others[0]}): choose an empty folder")
            self._note(_Position())
            return False
        try:
            known: Any = json.loads(path.read_text())
            made_of, shards, at = known["made_of"], known["shards"], _Position(**known["at"])
            self._entries = [ShardEntry(bytes.fromhex(blob), int(length)) for blob, length in shards]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}): delete the folder and prepare it anew") from None
        if made_of != json.loads(json.dumps(self._made_of)):
            raise DataError(
                f"{self._out} holds data made of other inputs, with another tokenizer or other options: delete the "
                "folder, or choose another"
            )
        self._at = at
        return at.finished and (self._out / FILE_NAME).exists()

    def _note(self, at: _Position) -> None:
        """Record that the shards so far are complete; the next one begins at `at`."""
        shards = [[entry.blob.hex(), entry.length] for entry in self._entries]
        text = json.dumps({"made_of": self._made_of, "shards": shards, "at": asdict(at)}, indent=1)
        write_whole(self._out / SOURCE_NAME, text.encode())

    def _write_shard(self, tokens: npt.NDArray[np.integer]) -> None:
        name = shard_name(len(self._entries))
        data = tokens.tobytes()
        pieces = Manifest.of_bytes(data)
        write_whole(self._out / (name + PIECES_SUFFIX), pieces.to_bytes())
        write_whole(self._out / name, data)
        self._entries.append(ShardEntry(pieces.id, len(data)))

    def _finish(self, highest: int) -> DataManifest:
        manifest = DataManifest(self._width, highest, tuple(self._entries), self._options.sequence_tokens)
        if self._encoder is not None:
            self._encoder.save(self._out)
        write_whole(self._out / "README.md", _card(manifest).encode())
        write_whole(self._out / FILE_NAME, manifest.to_bytes())
        self._note(_Position(highest=highest, finished=True))
        sync_path(self._out)
        return manifest


def begun_with(out: Path, repo_id: str) -> str:
    """The commit of a data set with which a folder was begun, so that it goes on with that one; empty if it was not."""
    try:
        names = [name for name, _ in json.loads((out / SOURCE_NAME).read_text())["made_of"]["parts"]]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    start = f"{repo_id}@"
    found = [name[len(start) :].partition(",")[0] for name in names if str(name).startswith(start)]
    return found[0] if found else ""


def _width(encoder: Encoder | None) -> int:
    if encoder is None:
        return 4
    return 1 if encoder.vocab_size <= 256 else 2 if encoder.vocab_size <= 65_536 else 4


def _card(manifest: DataManifest) -> str:
    return (
        "---\ntags:\n- psyche\n---\n"
        f"{manifest.num_tokens} tokens of {manifest.token_bytes} bytes in {len(manifest.shards)} shards, prepared with "
        f"`psyche-train prepare-data`.\n\nManifest: `{manifest.id.hex()}`\n"
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder; another process that prepares the same waits."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clean_temporaries(folder: Path) -> None:
    """Remove what an interrupted writer left; the caller holds the folder."""
    for stale in folder.glob(".*.tmp"):
        stale.unlink(missing_ok=True)
