"""Turn text into tokens, the same ones on every machine that has the same tokenizer file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from psyche_train.data.errors import DataError
from psyche_train.data.tokenizer import save_byte_tokenizer

Numbers = npt.NDArray[np.int64]

BYTES = "bytes"


class Encoder(Protocol):
    """A tokenizer."""

    vocab_size: int
    end_of_text: int | None
    """Token that ends a document, where the tokenizer has one."""
    digest: str
    """Of everything that decides the tokens."""

    def encode(self, texts: Sequence[bytes]) -> list[Numbers]:
        """Tokens of UTF-8 texts, without special ones.

        Raises:
            DataError: a text is not UTF-8.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the files from which transformers' AutoTokenizer opens it."""
        ...


class ByteEncoder:
    """Token n is byte n."""

    vocab_size = 256
    end_of_text: int | None = None
    digest = BYTES

    def encode(self, texts: Sequence[bytes]) -> list[Numbers]:
        """See `Encoder.encode`; any bytes will do."""
        return [np.frombuffer(text, dtype=np.uint8).astype(np.int64) for text in texts]

    def save(self, folder: Path) -> None:
        """See `Encoder.save`."""
        save_byte_tokenizer(folder)


class FileEncoder:
    """A `tokenizer.json` of the tokenizers library."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            data = path.read_bytes()
            self._tokenizer = Tokenizer.from_str(data.decode())
        except OSError as error:
            raise DataError(f"tokenizer {path} cannot be read: {error.strerror}") from None
        except Exception as error:  # the library raises plain Exceptions
            raise DataError(f"{path} is not a tokenizer.json of the tokenizers library: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._files = {path.name: data}
        beside = path.with_name("tokenizer_config.json")
        if beside.is_file():
            self._files[beside.name] = beside.read_bytes()
        self.vocab_size = max(self._tokenizer.get_vocab().values(), default=0) + 1
        self.end_of_text = self._end(self._files.get(beside.name, b"{}"))
        self.digest = hashlib.sha256(data).hexdigest()

    def encode(self, texts: Sequence[bytes]) -> list[Numbers]:
        """See `Encoder.encode`."""
        decoded = []
        for text in texts:
            try:
                decoded.append(text.decode())
            except UnicodeDecodeError as error:
                shown = text[max(0, error.start - 10) : error.start + 10]
                raise DataError(f"text near {shown!r} is not UTF-8: convert it first") from None
        encodings = self._tokenizer.encode_batch(decoded, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def save(self, folder: Path) -> None:
        """See `Encoder.save`."""
        for data in list(self._files.values())[:1]:
            (folder / "tokenizer.json").write_bytes(data)
        config = (
            self._files.get("tokenizer_config.json") or b'{"tokenizer_class": "PreTrainedTokenizerFast"}\n'
        )
        (folder / "tokenizer_config.json").write_bytes(config)

    def _end(self, config: bytes) -> int | None:
        named = None
        try:
            tables = json.loads(config)
            named = tables.get("eos_token") if isinstance(tables, dict) else None
        except ValueError:
            pass
        if isinstance(named, dict):
            named = named.get("content")
        for name in (named, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"):
            if isinstance(name, str) and (found := self._tokenizer.token_to_id(name)) is not None:
                return int(found)
        return None


def load_encoder(name: str) -> Encoder:
    """`bytes`, a `tokenizer.json`, a folder with one (or another transformers tokenizer), or a name on the Hub.

    Raises:
        DataError: there is none, or it is none.
    """
    if name == BYTES:
        return ByteEncoder()
    path = Path(name).expanduser()
    if path.is_dir():
        return FileEncoder(path / "tokenizer.json") if (path / "tokenizer.json").exists() else _convert(path)
    if path.exists() or path.suffix == ".json":
        return FileEncoder(path)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = Path(hf_hub_download(name, "tokenizer.json"))
    except (EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"tokenizer {name!r} is neither here nor on the Hub: {first}. Use bytes, the path of a tokenizer.json, "
            "or the name of a repository with one"
        ) from None
    return FileEncoder(found)


def _convert(folder: Path) -> Encoder:
    """A tokenizer of transformers that has no `tokenizer.json` yet."""
    import tempfile

    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        with tempfile.TemporaryDirectory() as there:
            tokenizer.backend_tokenizer.save(str(Path(there, "tokenizer.json")))
            return FileEncoder(Path(there, "tokenizer.json"))
    except (OSError, ValueError, AttributeError, KeyError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{folder} holds no tokenizer that can be used: {first}. A folder with a tokenizer.json is needed"
        ) from None
