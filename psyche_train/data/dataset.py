"""Samples by number: windows of the tokens, shuffled, with a part held out for validation.

The tokens are cut into windows of ``max_seq_len + 1`` (inputs and the targets one later) that do not
overlap. Windows form blocks of 32; of every ``round(1 / validation_fraction)`` blocks the last is held out,
so that the held-out text is like the trained one and never trained. The rest is numbered, shuffled anew for
every pass by a permutation seeded by the spec hash, and repeated for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from psyche_train.data.shuffle import Shuffle
from psyche_train.data.source import DataError, open_tokens
from psyche_train.spec import TrainSpec

_BLOCK = 32


class Dataset:
    """The run's samples.

    Args:
        spec: its data location, sequence length, and hash (the shuffle's seed).
        order: another seed of the shuffle, for comparisons of specs on the same order of samples.
        vocab_size: every token must be below it.

    Raises:
        DataError: the source does not verify, is too short, or holds a token outside the vocabulary.
    """

    def __init__(self, spec: TrainSpec, vocab_size: int, *, order: bytes | None = None) -> None:
        location = spec.data_location.chosen
        self._tokens = open_tokens(location)
        self._window = spec.max_seq_len + 1
        self._period = round(1 / location.validation_fraction)
        self._seed = spec.sha256 if order is None else order
        self._shuffles: dict[int, Shuffle] = {}
        num_windows = len(self._tokens) // self._window
        windows = np.arange(num_windows, dtype=np.int64)
        held_out = (windows // _BLOCK) % self._period == self._period - 1
        self._validation = windows[held_out]
        self.num_train = int(num_windows - held_out.sum())
        """Training samples of one pass."""
        if self.num_train == 0 or len(self._validation) == 0:
            raise DataError(
                f"{len(self._tokens)} tokens are too few for windows of {self._window} with "
                f"{location.validation_fraction} of them held out: use more data or shorter sequences"
            )
        highest = int(self._tokens.max())
        if highest >= vocab_size or int(self._tokens.min()) < 0:
            raise DataError(f"a token is {highest}, the model's vocabulary has {vocab_size}")

    def batch(self, samples: Sequence[range]) -> Tensor:
        """Return samples by number, int64 ``[samples, max_seq_len + 1]``."""
        numbers = [number for interval in samples for number in interval]
        windows = np.empty(len(numbers), dtype=np.int64)
        passes = np.array([number // self.num_train for number in numbers], dtype=np.int64)
        places = np.array([number % self.num_train for number in numbers], dtype=np.int64)
        for one in sorted(set(passes.tolist())):
            windows[passes == one] = self._train_window(self._shuffle(one)(places[passes == one]))
        return self._read(windows)

    def validation(self, limit: int) -> Tensor:
        """Return `limit` held-out windows, the same ones always, spread over the held-out part."""
        count = min(limit, len(self._validation))
        return self._read(self._validation[np.arange(count) * len(self._validation) // count])

    def _train_window(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Window of the n-th training sample: skips the held-out block of every period."""
        per_period = _BLOCK * (self._period - 1)
        return places // per_period * (_BLOCK * self._period) + places % per_period

    def _shuffle(self, one_pass: int) -> Shuffle:
        if one_pass not in self._shuffles:
            self._shuffles.clear()
            self._shuffles[one_pass] = Shuffle(self.num_train, self._seed + one_pass.to_bytes(8, "little"))
        return self._shuffles[one_pass]

    def _read(self, windows: npt.NDArray[np.int64]) -> Tensor:
        at = windows[:, None] * self._window + np.arange(self._window)
        return torch.from_numpy(self._tokens[at].astype(np.int64))
