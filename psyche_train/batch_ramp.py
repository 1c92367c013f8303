"""How many samples a round has: the coordinator's rule, a second time, in Python.

The program (`programs/coordinator/src/machine/data.rs`) and this module compute the same integers; a test
compares them. No floating point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_BATCH = 16_777_216
MAX_TOKENS = 2**63 - 1
_U64 = 2**64 - 1


class BatchRamp(BaseModel):
    """Samples of a round grow in a straight line with the tokens that were handed out before it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    global_batch_size_start: int = Field(ge=1, le=MAX_BATCH)
    """Samples per round at the start."""
    global_batch_size_end: int = Field(ge=1, le=MAX_BATCH)
    """Samples per round once `global_batch_size_warmup_tokens` were seen."""
    global_batch_size_warmup_tokens: int = Field(default=0, ge=0, le=MAX_TOKENS)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        low, high = self.global_batch_size_start, self.global_batch_size_end
        if low > high:
            raise ValueError(
                f"global_batch_size_start = {low}, it must be at most global_batch_size_end = {high}"
            )
        return self

    def samples(self, data_index: int, max_seq_len: int, members: int = 1) -> int:
        """Samples of the round whose first new sample is `data_index`; at least one for every member."""
        start, end = self.global_batch_size_start, self.global_batch_size_end
        warmup = self.global_batch_size_warmup_tokens
        tokens = min(data_index * max_seq_len, _U64)
        ramped = end if tokens >= warmup else start + (end - start) * tokens // warmup
        return max(ramped, members)

    def stretches(self, max_seq_len: int, members: int = 1) -> Iterator[Stretch]:
        """Yield the stretches of rounds with one batch size, if every update is accepted; the last has no end."""
        round_, data_index = 0, 0
        span = self.global_batch_size_end - self.global_batch_size_start
        while True:
            tokens, count = data_index * max_seq_len, self.samples(data_index, max_seq_len, members)
            if tokens >= self.global_batch_size_warmup_tokens or span == 0:
                yield Stretch(round_, None, data_index, count)
                return
            ramped = self.samples(data_index, max_seq_len)
            # tokens at which the integer division gives one sample more
            grows_at = -(
                -(ramped + 1 - self.global_batch_size_start) * self.global_batch_size_warmup_tokens // span
            )
            rounds = -(-(grows_at - tokens) // (max_seq_len * count))
            yield Stretch(round_, rounds, data_index, count)
            round_, data_index = round_ + rounds, data_index + rounds * count


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive rounds with one batch size."""

    first: int
    """0-based number of the first round."""
    rounds: int | None
    """None: from there on for ever."""
    data_index: int
    """First sample of the first round."""
    samples: int
    """Of each round."""
