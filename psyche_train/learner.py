"""Forward and backward: the part of a trainer that needs floating point and leaves shared weights alone.

Everything in `LearnerOptions` is the member's own choice: it may change speed, memory and the rounding of the
member's own gradient, and nothing that another member computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psyche_train.data.labels import IGNORED, inputs_and_labels
from psyche_train.jobs import NotFinite, TrainCancelled, TrainerError
from psyche_train.models.schema import Schema

MICRO_BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerOptions:
    """How one member computes."""

    micro_batch_tokens: int | None = None
    """Tokens of one forward and backward pass, at least one sample; bounds memory. None: 8192."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of forward and backward: "auto" is bf16 autocast on CUDA and fp32 elsewhere. Weights are always fp32."""
    compile: bool = False
    """Run the forward and backward pass through `torch.compile`; the fold never is."""
    checkpoint_activations: bool = False
    """Compute every layer's activations a second time in the backward pass instead of keeping them."""

    def __post_init__(self) -> None:
        if self.micro_batch_tokens is not None and self.micro_batch_tokens < 1:
            raise ValueError(f"micro_batch_tokens = {self.micro_batch_tokens}, at least 1")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision = {self.precision!r}: choose auto, fp32 or bf16")


class Learner:
    """A model on its device.

    Args:
        model: of the member's width and on `device`, as `ModelFamily.build` returns it.

    Raises:
        ValueError: the model has no activation checkpointing and the options ask for it.
    """

    def __init__(
        self, model: nn.Module, schema: Schema, device: torch.device, options: LearnerOptions | None = None
    ) -> None:
        self.device = device
        self.model = model
        self.options = options or LearnerOptions()
        parameters = dict(model.named_parameters())
        self.weights: dict[str, Tensor] = {tensor.name: parameters[tensor.name] for tensor in schema.tensors}
        """The model's own parameters in schema order; the fold changes them in place."""
        self.constants: dict[str, Tensor] = {
            tensor.name: model.get_buffer(tensor.name) for tensor in schema.constants
        }
        """What is saved with them and never changes."""
        if self.options.checkpoint_activations:
            _checkpoint_activations(model)
        self._forward: Callable[..., object] = torch.compile(model) if self.options.compile else model

    @property
    def stored(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds, in schema order."""
        return {**self.weights, **self.constants}

    @torch.no_grad()
    def copy_weights(self, source: Mapping[str, Tensor]) -> None:
        """Overwrite all weights, bit for bit, and the constants that `source` has."""
        for name, weight in self.weights.items():
            weight.copy_(source[name])
        for name, constant in self.constants.items():
            if name in source:
                constant.copy_(source[name])

    def gradients(
        self,
        windows: Tensor,
        *,
        cancelled: Callable[[], bool],
        clip_norm: float | None,
        offset: Mapping[str, Tensor] | None = None,
    ) -> tuple[float, dict[str, Tensor]]:
        """Return the mean loss over all counted tokens and its gradient, ``name -> fp32``.

        Args:
            windows: int64 ``[samples, max_seq_len + 1]``; inputs, and the targets one later. A number
                below zero is a token that is not counted as a target (`psyche_train.data.labels`).
            cancelled: asked before every micro-batch.
            clip_norm: largest L2 norm of the whole gradient; None leaves it.
            offset: subtracted from the weights while the gradient is computed; they are restored from a copy.

        Raises:
            TrainCancelled: `cancelled()` said so. NotFinite: the loss or the gradient is NaN or infinite.
            TrainerError: `torch.compile` was asked for and does not work here.
        """
        saved = None
        if offset is not None:
            saved = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.model.zero_grad(set_to_none=True)
        try:
            if offset is not None:
                self._move(offset)
            loss = self._accumulate(windows, num_counted(windows), cancelled)
            gradients = {
                name: torch.zeros_like(weight) if weight.grad is None else weight.grad.detach()
                for name, weight in self.weights.items()
            }
        finally:
            self.model.zero_grad(set_to_none=True)
            if saved is not None:
                self.copy_weights(saved)
        clip(loss, gradients, gradient_norm(gradients.values()), clip_norm)
        return loss, gradients

    @torch.no_grad()
    def loss(self, windows: Tensor) -> float:
        """Mean loss per counted token in fp32, without a gradient."""
        total = sum(float(self._loss_sum(part, self.model)) for part in self._micro_batches(windows))
        return total / num_counted(windows)

    @torch.no_grad()
    def _move(self, offset: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.sub_(offset[name])

    def _accumulate(self, windows: Tensor, num_counted: int, cancelled: Callable[[], bool]) -> float:
        """Add the gradient of the summed loss over `num_counted` to the parameters' own; returns that loss."""
        total = 0.0
        for part in self._micro_batches(windows):
            if cancelled():
                raise TrainCancelled
            try:
                with self._autocast():
                    loss = self._loss_sum(part, self._forward)
                (loss / num_counted).backward()  # type: ignore[no-untyped-call]
            except Exception as error:
                if self.options.compile and type(error).__module__.startswith("torch._"):
                    raise TrainerError(
                        f"torch.compile does not work here ({type(error).__name__}): start without it"
                    ) from error
                raise
            total += float(loss.detach())
        return total / num_counted

    def _loss_sum(self, windows: Tensor, forward: Callable[..., object]) -> Tensor:
        windows = windows.to(self.device)
        inputs, labels = inputs_and_labels(windows)
        logits: Tensor = forward(input_ids=inputs, use_cache=False).logits.float()  # type: ignore[attr-defined]
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")

    def _autocast(self) -> AbstractContextManager[object]:
        precision = self.options.precision
        if precision == "bf16" or (precision == "auto" and self.device.type == "cuda"):
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _micro_batches(self, windows: Tensor) -> tuple[Tensor, ...]:
        per_batch = max(1, (self.options.micro_batch_tokens or MICRO_BATCH_TOKENS) // (windows.shape[1] - 1))
        return tuple(windows[start : start + per_batch] for start in range(0, len(windows), per_batch))


def gradient_norm(gradients: Iterable[Tensor]) -> float:
    """L2 norm of all tensors together. Not shared with anybody, so fp32 inside a tensor is exact enough."""
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    return float(torch.linalg.vector_norm(torch.stack(norms).cpu().double())) if norms else 0.0


def clip(loss: float, gradients: Mapping[str, Tensor], norm: float, clip_norm: float | None) -> None:
    """Scale gradients of L2 norm `norm` down to `clip_norm`, in place.

    Raises:
        NotFinite: the loss or the norm is NaN or infinite.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise NotFinite(f"loss {loss}, gradient norm {norm}: the run's learning rate may be too high")
    if clip_norm is not None and norm > clip_norm:
        for gradient in gradients.values():
            gradient.mul_(clip_norm / norm)


def num_counted(windows: Tensor) -> int:
    """Targets that count, at least 1."""
    return max(1, int((windows[:, 1:] >= 0).sum()))


def _checkpoint_activations(model: nn.Module) -> None:
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ValueError(f"{type(model).__name__} has no activation checkpointing: start without it")
    model.gradient_checkpointing_enable(  # type: ignore[operator]
        gradient_checkpointing_kwargs={"use_reentrant": False}
    )
