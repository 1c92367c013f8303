"""Evaluation of a member's weights while it is a member: one small slice at a time, between its duties.

The weights go on while an evaluation is under way, because no duty waits for it: a result names the step at
which it began and the one at which it ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from psyche_train.checkpoints.errors import CheckpointError
from psyche_train.errors import ConfigError, PsycheError
from psyche_train.evals.load import load_questions, task_named
from psyche_train.evals.options import EvalOptions
from psyche_train.evals.score import TaskRun
from psyche_train.evals.validation import ValidationRun, slice_model
from psyche_train.inference.sampling import Sampler, Sampling, continuation
from psyche_train.inference.tokens import BYTES, ByteTokens, HfTokens, TextStream, Tokens
from psyche_train.resolve import checkpoint_dir
from psyche_train.spec import InitCheckpoint, TrainSpec
from psyche_train.trainer import VALIDATION_WINDOWS, Trainer, TrainerError


class MemberEvals:
    """Validation loss of every tier that the member holds, tasks, and a prompt.

    Raises:
        PsycheError: a task, its questions or the tokenizer is not there.
    """

    def __init__(self, trainer: Trainer, options: EvalOptions) -> None:
        self._trainer, self._options = trainer, options
        spec = trainer.spec
        self._context = spec.max_seq_len
        self._vocab_size = trainer.schema.family.vocab_size
        self._tokens: Tokens | None = None
        if options.tasks or options.prompt:
            self._tokens = _tokens(spec, self._vocab_size)
        self._questions = {
            name: load_questions(task_named(name), options.folder, options.limit) for name in options.tasks
        }
        self._under_way: Iterator[dict[str, Any] | None] | None = None
        self._model: nn.Module | None = None
        self._began = 0
        self._next = 0
        self._failed = False

    def is_due(self, step: int) -> bool:
        """Whether there is something to do before the round of this step."""
        return not self._failed and (self._under_way is not None or step >= self._next)

    def slice(self, step: int) -> dict[str, Any] | None:
        """Do a forward pass's worth; return what is finished with it, if anything is.

        After an error, which is a result, too, nothing is due any more.
        """
        try:
            with self._trainer.reading() as (model, weights):
                if self._under_way is None or model is not self._model:
                    self._began, self._model = step, model
                    self._under_way = self._parts(model, weights)
                result = next(self._under_way, {})
        except TrainerError:  # no weights at the moment: another duty brings them
            self._under_way, self._next = None, step + 1
            return None
        except (PsycheError, RuntimeError, ValueError, OSError) as error:
            self._failed, self._under_way = True, None
            return {"error": str(error)}
        if result == {}:
            self._under_way, self._next = None, self._began + self._options.every
        return {**result, "first_step": self._began, "step": step} if result else None

    def _parts(
        self, model: nn.Module | None, weights: Mapping[str, Tensor]
    ) -> Iterator[dict[str, Any] | None]:
        trainer = self._trainer
        windows = trainer.data.validation(VALIDATION_WINDOWS)
        for tier in range(trainer.spec.matformer.max_tier, trainer.tier - 1, -1):
            asked = model if tier == trainer.tier else None
            if asked is None:
                asked = slice_model(
                    trainer.schema,
                    weights,
                    held=trainer.held_tier,
                    tier=tier,
                    ffn_rescale=trainer.spec.matformer.ffn_rescale,
                    device=trainer.device,
                )
                yield None
            run = ValidationRun(windows)
            for _ in run.slices(asked):
                yield None
            yield {"task": "validation", "tier": tier, "loss": run.loss()}
        assert asked is not None  # the loop ends with the member's own tier
        yield from self._tasks(asked)
        if self._options.prompt:
            yield from self._sample(asked)

    def _tasks(self, model: nn.Module) -> Iterator[dict[str, Any] | None]:
        for name, questions in self._questions.items():
            assert self._tokens is not None
            run = TaskRun(
                name,
                questions,
                self._tokens,
                context=self._context,
                vocab_size=self._vocab_size,
                normed=task_named(name).normed,
            )
            for _ in run.slices(model):
                yield None
            yield {**asdict(run.score()), "tier": self._trainer.tier}

    def _sample(self, model: nn.Module) -> Iterator[dict[str, Any] | None]:
        tokens, prompt = self._tokens, self._options.prompt
        assert tokens is not None
        stream, text = TextStream(tokens), ""
        for token in continuation(
            model,
            tokens.encode(prompt),
            max_tokens=self._options.prompt_tokens,
            context=self._context,
            sampler=Sampler(Sampling()),
            end=tokens.end,
            cached=False,  # the weights may change between two tokens
        ):
            text += stream.push(token)
            yield None
        yield {"task": "prompt", "tier": self._trainer.tier, "text": prompt + text + stream.flush()}


def _tokens(spec: TrainSpec, vocab_size: int) -> Tokens:
    chosen = spec.checkpoint.chosen
    if not isinstance(chosen, InitCheckpoint):
        try:
            folder = checkpoint_dir(chosen)
        except CheckpointError as error:
            raise ConfigError(
                f"the run's first checkpoint, which has the tokenizer, is not here: {error}",
                "get it, or leave --eval-tasks and --eval-prompt away: the validation loss needs no tokenizer",
            ) from error
        if (folder / "tokenizer.json").is_file():
            return HfTokens(folder)
    if vocab_size == BYTES:
        return ByteTokens()
    raise ConfigError(
        "the run's first checkpoint has no tokenizer, so neither tasks nor a prompt can be evaluated",
        "leave --eval-tasks and --eval-prompt away: the validation loss needs no tokenizer",
    )
