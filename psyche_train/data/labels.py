"""Windows with positions that are no targets.

A window is one row of numbers from which inputs and targets are taken, the targets one later. A number below
zero is a token too, ``~x`` (that is ``-x - 1``), but not to be learned: as a target it is the label -100, which
the loss ignores. So padding and prompts need no second tensor.
"""

from __future__ import annotations

from torch import Tensor

IGNORED = -100


def inputs_and_labels(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Split windows, int64 ``[samples, n + 1]``, into inputs and labels ``[samples, n]``."""
    hidden = windows < 0
    inputs = windows.where(~hidden, ~windows)[:, :-1]
    labels = windows.masked_fill(hidden, IGNORED)[:, 1:]
    return inputs, labels
