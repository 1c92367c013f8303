"""Text to tokens and back: bytes, or the tokenizer that lies with a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from psyche_train.errors import ConfigError

BYTES = 256
"""Vocabulary of a byte-level model: token n is byte n."""
MAX_PENDING = 4
"""Bytes of the longest UTF-8 character: so many tokens may wait for the rest of one."""


class Tokens(Protocol):
    """A tokenizer."""

    end: frozenset[int]
    """Tokens that end a text."""
    start: int | None
    """Token that begins a text, if the tokenizer has one."""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text; with `special`, those that the tokenizer puts around one, too."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens; what is no UTF-8 becomes U+FFFD."""
        ...


class ByteTokens:
    """Token n is byte n."""

    end: frozenset[int] = frozenset()
    start: int | None = None

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The text's bytes in UTF-8."""
        del special
        return list(text.encode("utf-8", errors="replace"))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of bytes."""
        return bytes(tokens).decode("utf-8", errors="replace")


class HfTokens:
    """A Hugging Face tokenizer from the files beside a checkpoint; no code of strangers is run."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
            raise ConfigError(
                f"the tokenizer in {folder} cannot be read: {_first_line(error)}",
                "copy the tokenizer files of the model there",
            ) from error
        end = self._tokenizer.eos_token_id
        self.end: frozenset[int] = frozenset() if end is None else frozenset([int(end)])
        self.start: int | None = self._tokenizer.bos_token_id

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text."""
        found = self._tokenizer.encode(text, add_special_tokens=special)
        return [int(token) for token in found]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, without special ones."""
        text: str = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def tokens_of(folder: Path, vocab_size: int) -> Tokens:
    """The tokenizer of a checkpoint directory; bytes where it has none and the vocabulary is that of bytes.

    Raises:
        ConfigError: there is no tokenizer, or it cannot be read.
    """
    if any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        return HfTokens(folder)
    if vocab_size == BYTES:
        return ByteTokens()
    raise ConfigError(
        f"{folder} has no tokenizer, and a vocabulary of {vocab_size} tokens is not that of bytes",
        "copy the tokenizer files of the model (tokenizer.json, tokenizer_config.json) there",
    )


class TextStream:
    """Text of tokens as they come: whole characters only."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._seen: list[int] = []
        self._from = 0
        """Decoding begins here: some tokens are written differently at the beginning of a text."""
        self._shown = 0
        """Tokens whose text was given out."""

    def push(self, token: int) -> str:
        """The text that this token completes; empty if it ends within a character."""
        self._seen.append(token)
        return self._new(flush=len(self._seen) - self._shown >= MAX_PENDING)

    def flush(self) -> str:
        """What is left at the end, be it half a character."""
        return self._new(flush=True)

    def _new(self, *, flush: bool) -> str:
        before = self._tokens.decode(self._seen[self._from : self._shown])
        now = self._tokens.decode(self._seen[self._from :])
        if now.endswith("\ufffd") and not flush:
            return ""
        self._from, self._shown = self._shown, len(self._seen)
        return now[len(before) :]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
