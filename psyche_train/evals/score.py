"""Log-likelihoods of choices, and what a task's answers come to; one forward pass at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from psyche_train.errors import PsycheError
from psyche_train.evals.options import SLICE_TOKENS
from psyche_train.evals.tasks import Question
from psyche_train.inference.tokens import Tokens

Pair = tuple[list[int], list[int]]
"""Tokens of a context and of what follows it."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """What a model came to in a task."""

    task: str
    questions: int
    acc: float
    acc_norm: float | None
    """By log-likelihood per character of the choice; None where the task does not report it."""
    acc_stderr: float
    """Standard error of `acc`."""


def encode_pair(tokens: Tokens, context: str, choice: str) -> Pair:
    """Tokens of a context and of the choice after a space, as the harness divides them.

    White space at the end of the context belongs to the choice, because tokenizers join it to the next word.
    """
    bare = context.rstrip()
    rest = context[len(bare) :] + " " + choice
    before = tokens.encode(bare)
    return before, tokens.encode(bare + rest)[len(before) :]


@torch.no_grad()
def log_likelihoods(model: Any, pairs: Sequence[Pair], context: int) -> list[float]:
    """Sum of the log-probabilities of what follows, one number a pair; one forward pass.

    Args:
        context: tokens that the model sees at most; of longer ones, the last count.
    """
    inputs = [(before + after)[-(context + 1) :] for before, after in pairs]
    width = max(len(tokens) for tokens in inputs) - 1
    device = next(model.parameters()).device
    ids = torch.zeros(len(inputs), width, dtype=torch.int64)
    for row, tokens in zip(ids, inputs, strict=True):
        row[: len(tokens) - 1] = torch.tensor(tokens[:-1])
    logits = model(input_ids=ids.to(device), use_cache=False).logits.float()
    found = []
    for scores, tokens, (_, after) in zip(logits, inputs, pairs, strict=True):
        count = min(len(after), len(tokens) - 1)
        targets = torch.tensor(tokens[-count:], device=scores.device)
        loss = F.cross_entropy(scores[len(tokens) - 1 - count : len(tokens) - 1], targets, reduction="sum")
        found.append(-float(loss))
    return found


class TaskRun:
    """A task under way: `step` asks a part of a question, `score` tells what the answers came to so far."""

    def __init__(
        self,
        name: str,
        questions: Sequence[Question],
        tokens: Tokens,
        *,
        context: int,
        vocab_size: int,
        normed: bool,
    ) -> None:
        self.name, self.total = name, len(questions)
        self._questions, self._tokens, self._normed = questions, tokens, normed
        self._context, self._vocab_size = context, vocab_size
        self._right = self._right_normed = 0
        self.asked = 0
        """Questions that were answered."""

    def slices(self, model: Any) -> Iterator[None]:
        """Yield after every forward pass, until all questions are answered.

        Raises:
            PsycheError: the tokenizer is not the model's, or the model's logits are not finite.
        """
        for question in self._questions:
            pairs = [self._pair(question.context, choice) for choice in question.choices]
            found: list[float] = []
            for part in _parts(pairs, self._context):
                found += log_likelihoods(model, part, self._context)
                yield
            if not all(map(math.isfinite, found)):
                raise PsycheError("the model's logits are not finite: its training has diverged")
            lengths = [len(choice) for choice in question.choices]
            normed = [value / length for value, length in zip(found, lengths, strict=True)]
            self._right += _likeliest(found) == question.answer
            self._right_normed += _likeliest(normed) == question.answer
            self.asked += 1

    def score(self) -> TaskScore:
        """What the answers came to; at least one question was answered."""
        acc = self._right / self.asked
        spread = math.sqrt(acc * (1 - acc) / (self.asked - 1)) if self.asked > 1 else 0.0
        normed = self._right_normed / self.asked if self._normed else None
        return TaskScore(self.name, self.asked, acc, normed, spread)

    def _pair(self, context: str, choice: str) -> Pair:
        before, after = encode_pair(self._tokens, context, choice)
        if (highest := max(before + after)) >= self._vocab_size:
            raise PsycheError(
                f"the tokenizer gives token {highest}, the model has {self._vocab_size}: it is not the model's own"
            )
        return before, after


def _parts(pairs: Sequence[Pair], context: int) -> Iterator[list[Pair]]:
    """Neighbours that fit into a slice together, one pair at least."""
    part: list[Pair] = []
    for pair in pairs:
        width = max(min(context, len(before) + len(after)) for before, after in [*part, pair])
        if part and width * (len(part) + 1) > SLICE_TOKENS:
            yield part
            part = []
        part.append(pair)
    if part:
        yield part


def _likeliest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])
