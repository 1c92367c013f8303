"""Continue a text token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from psyche_train.errors import PsycheError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float = 0.8
    """0 takes the likeliest token."""
    top_k: int = 0
    """Only the likeliest so many; 0: all."""
    top_p: float = 1.0
    """Only the likeliest that together have this probability."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise ValueError(f"temperature = {self.temperature:g}, allowed 0 to 100")
        if self.top_k < 0:
            raise ValueError(f"top-k = {self.top_k}, allowed 1 and more, or 0 for all tokens")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p = {self.top_p:g}, allowed above 0 to 1")


class Sampler:
    """Draws tokens; the same seed and the same logits give the same tokens on every machine."""

    def __init__(self, sampling: Sampling) -> None:
        self._how = sampling
        self._generator = torch.Generator("cpu").manual_seed(sampling.seed)

    def pick(self, logits: Tensor) -> int:
        """Draw a token.

        Args:
            logits: ``[vocabulary]``.

        Raises:
            PsycheError: they are not finite.
        """
        values = logits.detach().to("cpu", torch.float64)
        if not bool(torch.isfinite(values).all()):
            raise PsycheError(
                "the model's logits are not finite", "its training has diverged: use an earlier checkpoint"
            )
        if self._how.temperature == 0:
            return int(values.argmax())
        order = torch.sort(values, descending=True, stable=True)  # ties go to the lower token
        chances = torch.softmax(order.values / self._how.temperature, dim=0)
        kept = len(chances) if self._how.top_k == 0 else min(self._how.top_k, len(chances))
        if self._how.top_p < 1:
            before = chances.cumsum(0) - chances
            kept = min(kept, int((before < self._how.top_p).sum()))
        at = torch.multinomial(chances[:kept], 1, generator=self._generator)
        return int(order.indices[at])


def continuation(
    model: Any,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    context: int,
    sampler: Sampler,
    end: frozenset[int] = frozenset(),
    cached: bool = True,
) -> Iterator[int]:
    """Yield the tokens that follow a prompt, without the one that ends the text.

    Args:
        model: called with ``input_ids`` as `transformers` models are.
        prompt: at least one token.
        context: tokens that the model sees at most; older ones are forgotten.
        cached: keep what a `transformers` model computed of a text until it is longer than the context.
    """
    from transformers import PreTrainedModel

    device = next(model.parameters()).device
    text, cache = list(prompt), None
    caches = cached and isinstance(model, PreTrainedModel)
    for _ in range(max_tokens):
        with torch.no_grad():
            if caches and len(text) <= context:
                new = text if cache is None else text[-1:]
                ids = torch.tensor([new], device=device)
                out = model(input_ids=ids, use_cache=True, past_key_values=cache)
                cache = out.past_key_values
            else:
                cache = None
                out = model(input_ids=torch.tensor([text[-context:]], device=device), use_cache=False)
        token = sampler.pick(out.logits[0, -1])
        if token in end:
            return
        yield token
        text.append(token)
