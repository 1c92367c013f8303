"""Windows with positions that are no targets.

A window is one row of numbers from which inputs and targets are taken, the targets one later. A number below
zero is a token too, ``-100 - token``, but not to be learned: as a target it is the label -100, which the loss
ignores. So padding and prompts need no second tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100


def hide(tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Tokens as they are written where they are no targets."""
    return IGNORED - tokens


def shown(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The tokens behind the numbers of a window, hidden or not."""
    return np.where(numbers < 0, IGNORED - numbers, numbers)


def inputs_and_labels(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Split windows, int64 ``[samples, n + 1]``, into inputs and labels ``[samples, n]``."""
    hidden = windows < 0
    inputs = windows.where(~hidden, IGNORED - windows)[:, :-1]
    labels = windows.masked_fill(hidden, IGNORED)[:, 1:]
    return inputs, labels
