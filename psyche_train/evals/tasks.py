"""Multiple-choice tasks in the definitions of lm-evaluation-harness (its 0.4 line), zero-shot.

A question is a context and choices; the model answers with the choice that it finds likeliest to follow the
context and a space. `acc` counts right answers; `acc_norm` those by log-likelihood divided by the choice's
characters. Rows are those of the data sets on the Hugging Face Hub, one JSON object a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One question."""

    context: str
    choices: tuple[str, ...]
    answer: int
    """Index of the right choice."""


@dataclass(frozen=True, slots=True)
class Task:
    """A multiple-choice task."""

    name: str
    dataset: str
    """On the Hugging Face Hub."""
    subset: str | None
    split: str
    question: Callable[[Row], Question]
    """Raises KeyError, TypeError or ValueError where a row is not one of the data set's."""
    normed: bool = True
    """The harness reports `acc_norm`, too."""


def _arc(row: Row) -> Question:
    choices = row["choices"]
    return Question(
        f"Question: {row['question']}\nAnswer:",
        tuple(choices["text"]),
        list(choices["label"]).index(row["answerKey"]),
    )


def _boolq(row: Row) -> Question:
    context = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return Question(context, ("no", "yes"), int(row["label"]))


def _hellaswag(row: Row) -> Question:
    context = row["ctx_a"] + " " + row["ctx_b"].capitalize()
    return Question(
        _wikihow(row["activity_label"] + ": " + context),
        tuple(_wikihow(ending) for ending in row["endings"]),
        int(row["label"]),
    )


def _wikihow(text: str) -> str:
    """Without the marks that WikiHow's articles left in HellaSwag."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _mmlu(row: Row) -> Question:
    subject = str(row["subject"]).replace("_", " ")
    letters = ("A", "B", "C", "D")
    answers = "".join(f"{letter}. {text}\n" for letter, text in zip(letters, row["choices"], strict=True))
    return Question(
        f"The following are multiple choice questions (with answers) about {subject}.\n\n"
        f"{row['question'].strip()}\n{answers}Answer:",
        letters,
        int(row["answer"]),
    )


def _openbookqa(row: Row) -> Question:
    choices = row["choices"]
    answer = list(choices["label"]).index(row["answerKey"].lstrip())
    return Question(row["question_stem"], tuple(choices["text"]), answer)


def _piqa(row: Row) -> Question:
    return Question(f"Question: {row['goal']}\nAnswer:", (row["sol1"], row["sol2"]), int(row["label"]))


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("arc_easy", "allenai/ai2_arc", "ARC-Easy", "test", _arc),
        Task("arc_challenge", "allenai/ai2_arc", "ARC-Challenge", "test", _arc),
        Task("boolq", "aps/super_glue", "boolq", "validation", _boolq, normed=False),
        Task("hellaswag", "Rowan/hellaswag", None, "validation", _hellaswag),
        Task("mmlu", "cais/mmlu", "all", "test", _mmlu, normed=False),
        Task("openbookqa", "allenai/openbookqa", "main", "test", _openbookqa),
        Task("piqa", "baber/piqa", None, "validation", _piqa),
    )
}
"""Every task by its name."""


def check(question: Question) -> Question:
    """Refuse a question that cannot be asked.

    Raises:
        ValueError: says why.
    """
    if not question.context.strip():
        raise ValueError("the context is empty")
    if len(question.choices) < 2 or not all(isinstance(c, str) and c for c in question.choices):
        raise ValueError("there must be two choices at least, none of them empty")
    if not 0 <= question.answer < len(question.choices):
        raise ValueError(f"the answer is number {question.answer} of {len(question.choices)} choices")
    return question
