"""Validation loss on held-out windows, of a model or of every slice of its weights, in small slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psyche_train.evals.options import SLICE_TOKENS
from psyche_train.models.schema import Schema


class ValidationRun:
    """Mean loss per token over held-out windows, under way."""

    def __init__(self, windows: Tensor) -> None:
        self._windows = windows
        self._sum = 0.0
        self._count = 0

    def slices(self, model: Any) -> Iterator[None]:
        """Yield after every forward pass of at most `SLICE_TOKENS` tokens, or one window."""
        device = next(model.parameters()).device
        rows = max(1, SLICE_TOKENS // (self._windows.shape[1] - 1))
        for start in range(0, len(self._windows), rows):
            ids = self._windows[start : start + rows].to(device)
            with torch.no_grad():
                logits = model(input_ids=ids[:, :-1], use_cache=False).logits.float()
                targets = ids[:, 1:].flatten()
                self._sum += float(
                    F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=-100, reduction="sum")
                )
            self._count += int((targets != -100).sum())
            yield

    def loss(self) -> float:
        """Mean over the tokens that were asked."""
        return self._sum / max(1, self._count)


@torch.no_grad()
def slice_model(
    schema: Schema,
    weights: Mapping[str, Tensor],
    *,
    held: int,
    tier: int,
    ffn_rescale: float,
    device: torch.device,
) -> nn.Module:
    """A model of tier `tier` that holds its slice of weights at tier `held`'s width; copied.

    Args:
        weights: ``name -> fp32`` in schema order, and the model's constants.
    """
    family = schema.family
    taken = {t.name: t.take(weights[t.name].detach(), tier, held) for t in schema.stored}
    factor = 2.0 ** (tier * ffn_rescale)
    model = family.build(family.ffn_width >> tier, taken, device, factor=factor)
    return model.eval().requires_grad_(False)
