"""Forward and backward: the part of a trainer that needs floating point and leaves shared weights alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psyche_train.jobs import NotFinite, TrainCancelled
from psyche_train.models.schema import Schema

MICRO_BATCH_TOKENS = 8192
"""Tokens of one forward and backward pass; bounds memory."""


class Learner:
    """A model on its device.

    Args:
        model: of the member's width and on `device`, as `ModelFamily.build` returns it.
    """

    def __init__(self, model: nn.Module, schema: Schema, device: torch.device) -> None:
        self.device = device
        self.model = model
        parameters = dict(model.named_parameters())
        self.weights: dict[str, Tensor] = {tensor.name: parameters[tensor.name] for tensor in schema.tensors}
        """The model's own parameters in schema order; the fold changes them in place."""

    @torch.no_grad()
    def copy_weights(self, source: Mapping[str, Tensor]) -> None:
        """Overwrite all weights, bit for bit."""
        for name, weight in self.weights.items():
            weight.copy_(source[name])

    def gradients(
        self,
        windows: Tensor,
        *,
        cancelled: Callable[[], bool],
        clip_norm: float | None,
        offset: Mapping[str, Tensor] | None = None,
    ) -> tuple[float, dict[str, Tensor]]:
        """Return the mean loss over all tokens and its gradient, ``name -> fp32``.

        Args:
            windows: int64 ``[samples, max_seq_len + 1]``; inputs, and the targets one later.
            cancelled: asked before every micro-batch.
            clip_norm: largest L2 norm of the whole gradient; None leaves it.
            offset: subtracted from the weights while the gradient is computed; they are restored from a copy.

        Raises:
            TrainCancelled: `cancelled()` said so. NotFinite: the loss or the gradient is NaN or infinite.
        """
        saved = None
        if offset is not None:
            saved = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.model.zero_grad(set_to_none=True)
        try:
            if offset is not None:
                self._move(offset)
            loss = self._accumulate(windows, cancelled)
            gradients = {
                name: torch.zeros_like(weight) if weight.grad is None else weight.grad.detach()
                for name, weight in self.weights.items()
            }
        finally:
            self.model.zero_grad(set_to_none=True)
            if saved is not None:
                self.copy_weights(saved)
        norm = gradient_norm(gradients.values())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NotFinite(f"loss {loss}, gradient norm {norm}: the run's learning rate may be too high")
        if clip_norm is not None and norm > clip_norm:
            for gradient in gradients.values():
                gradient.mul_(clip_norm / norm)
        return loss, gradients

    @torch.no_grad()
    def loss(self, windows: Tensor) -> float:
        """Mean loss per token in fp32, without a gradient."""
        total = sum(float(self._loss_sum(part)) for part in _micro_batches(windows))
        return total / windows[:, 1:].numel()

    @torch.no_grad()
    def _move(self, offset: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.sub_(offset[name])

    def _accumulate(self, windows: Tensor, cancelled: Callable[[], bool]) -> float:
        num_tokens, total = windows[:, 1:].numel(), 0.0
        for part in _micro_batches(windows):
            if cancelled():
                raise TrainCancelled
            with self._autocast():
                loss = self._loss_sum(part)
            (loss / num_tokens).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total / num_tokens

    def _loss_sum(self, windows: Tensor) -> Tensor:
        windows = windows.to(self.device)
        logits = self.model(input_ids=windows[:, :-1], use_cache=False).logits.float()
        targets = windows[:, 1:].flatten()
        return F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=-100, reduction="sum")

    def _autocast(self) -> AbstractContextManager[object]:
        if self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()


def gradient_norm(gradients: Iterable[Tensor]) -> float:
    """L2 norm of all tensors together. Not shared with anybody, so fp32 inside a tensor is exact enough."""
    norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
    return float(torch.linalg.vector_norm(norms.double()))


def choose_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:N" or "mps" into a device that is there.

    Raises:
        ValueError: there is no such device; says which ones there are.
    """
    there = ["cpu"]
    there += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    there += ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto":
        return torch.device(there[1] if len(there) > 1 else "cpu")
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in there:
        raise ValueError(f"device {name!r} is not on this machine: choose auto, {', '.join(there)}")
    return torch.device(wanted)


def _micro_batches(windows: Tensor) -> tuple[Tensor, ...]:
    per_batch = max(1, MICRO_BATCH_TOKENS // (windows.shape[1] - 1))
    return tuple(windows[start : start + per_batch] for start in range(0, len(windows), per_batch))
