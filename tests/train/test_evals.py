"""Tasks in the harness's definitions, their log-likelihoods, and a member's evaluation in slices."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from psyche_train.errors import ConfigError, NotFoundError, PsycheError
from psyche_train.evals.load import load_questions, names_of, task_named
from psyche_train.evals.member import MemberEvals
from psyche_train.evals.options import SLICE_TOKENS, EvalOptions
from psyche_train.evals.score import TaskRun, encode_pair, log_likelihoods
from psyche_train.evals.tasks import TASKS, Question
from psyche_train.evals.validation import ValidationRun, slice_model
from psyche_train.inference.tokens import ByteTokens
from psyche_train.local_run import RUN, LocalRun
from psyche_train.trainer import Trainer, TrainJob

ROWS: dict[str, tuple[dict[str, Any], Question]] = {
    "arc_easy": (
        {"question": "Hot?", "choices": {"text": ["ice", "fire"], "label": ["1", "2"]}, "answerKey": "2"},
        Question("Question: Hot?\nAnswer:", ("ice", "fire"), 1),
    ),
    "arc_challenge": (
        {
            "question": "Hot?",
            "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]},
            "answerKey": "A",
        },
        Question("Question: Hot?\nAnswer:", ("a", "b", "c"), 0),
    ),
    "boolq": (
        {"passage": "Ice is cold.", "question": "is ice cold", "label": 1},
        Question("Ice is cold.\nQuestion: is ice cold?\nAnswer:", ("no", "yes"), 1),
    ),
    "hellaswag": (
        {
            "activity_label": "Cooking",
            "ctx_a": "A man cuts [step] bread.",
            "ctx_b": "he Then",
            "endings": [" eats it. [title] Done", "flies away."],
            "label": "0",
        },
        Question("Cooking: A man cuts bread. He then", ("eats it.. Done", "flies away."), 0),
    ),
    "mmlu": (
        {
            "question": " What? ",
            "subject": "high_school_physics",
            "choices": ["a", "b", "c", "d"],
            "answer": 3,
        },
        Question(
            "The following are multiple choice questions (with answers) about high school physics.\n\n"
            "What?\nA. a\nB. b\nC. c\nD. d\nAnswer:",
            ("A", "B", "C", "D"),
            3,
        ),
    ),
    "openbookqa": (
        {
            "question_stem": "The sun is",
            "choices": {"text": ["hot", "cold"], "label": ["A", "B"]},
            "answerKey": " A",
        },
        Question("The sun is", ("hot", "cold"), 0),
    ),
    "piqa": (
        {"goal": "Cool it", "sol1": "ice", "sol2": "fire", "label": 0},
        Question("Question: Cool it\nAnswer:", ("ice", "fire"), 0),
    ),
}


def write(folder: Path, task: str, *rows: Any) -> None:
    (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_row_becomes_the_harness_question(name: str, tmp_path: Path) -> None:
    row, expected = ROWS[name]
    write(tmp_path, name, row, row, row)
    assert load_questions(task_named(name), tmp_path, 2) == [expected] * 2


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_row_without_any_one_of_its_keys_is_named_with_file_and_line(name: str, tmp_path: Path) -> None:
    row, _ = ROWS[name]
    for key in row:
        if name == "hellaswag" and key == "split":
            continue
        write(tmp_path, name, row, {k: v for k, v in row.items() if k != key})
        with pytest.raises(ConfigError, match=rf"{name}.jsonl:2: '{key}' is missing"):
            load_questions(task_named(name), tmp_path, None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answerKey": "9"}, "not in list"),
        ({"question": 7, "choices": None}, "not a row"),
        ({"choices": {"text": ["one"], "label": ["A"]}, "answerKey": "A"}, "two choices at least"),
        ({"choices": {"text": ["", "x"], "label": ["A", "B"]}, "answerKey": "A"}, "none of them empty"),
        ({"choices": {"text": ["x", 5], "label": ["A", "B"]}, "answerKey": "A"}, "two choices"),
    ],
)
def test_a_wrong_row_is_refused(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, "arc_easy", {**ROWS["arc_easy"][0], **row})
    with pytest.raises(ConfigError, match=message):
        load_questions(task_named("arc_easy"), tmp_path, None)


def test_files_that_are_none(tmp_path: Path) -> None:
    task = task_named("piqa")
    with pytest.raises(NotFoundError, match="does not exist"):
        load_questions(task, tmp_path, None)
    path = tmp_path / "piqa.jsonl"
    for content, message in (
        (b"", "there are no questions"),
        (b"{", "piqa.jsonl:1: not JSON"),
        (b"[]", "piqa.jsonl:1: not a table"),
        (b"\xff", "cannot be read"),
        (b"[" * 100_000, "not JSON"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            load_questions(task, tmp_path, None)
    with pytest.raises(PsycheError, match="there is no task 'x'"):
        names_of("piqa,x")
    assert names_of("all") == list(TASKS)
    assert names_of("piqa, arc_easy,piqa") == ["piqa", "arc_easy"]


class Table(nn.Module):
    """Next-token logits that depend on the token before only."""

    def __init__(self, vocab_size: int = 256) -> None:
        super().__init__()
        self.table = nn.Parameter(
            torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(0))
        )
        self.widths: list[int] = []

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        self.widths.append(input_ids.numel())
        return type("Out", (), {"logits": self.table[input_ids]})


def expected(model: Table, context: bytes, choice: bytes) -> float:
    table = model.table.detach().double().log_softmax(dim=1)
    text = context + choice
    return float(sum(table[text[i - 1], text[i]] for i in range(len(context), len(text))))


def test_log_likelihoods_are_sums_of_the_choices_tokens() -> None:
    model, tokens = Table(), ByteTokens()
    pairs = [
        encode_pair(tokens, "Where to?", choice) for choice in ("home", "a very long way from home", "x")
    ]
    found = log_likelihoods(model, pairs, 128)
    for value, choice in zip(found, ("home", "a very long way from home", "x"), strict=True):
        assert value == pytest.approx(expected(model, b"Where to?", b" " + choice.encode()), abs=1e-3)
    alone = [log_likelihoods(model, [pair], 128)[0] for pair in pairs]
    assert alone == pytest.approx(found, abs=1e-4)


def test_of_a_long_context_the_end_counts() -> None:
    model, tokens = Table(), ByteTokens()
    pair = encode_pair(tokens, "y" * 500 + "Where", "home")
    assert log_likelihoods(model, [pair], 16)[0] == pytest.approx(
        expected(model, b"Where", b" home"), abs=1e-3
    )
    longer = encode_pair(tokens, "Where", "z" * 40)
    kept = log_likelihoods(model, [longer], 16)[0]
    assert kept == pytest.approx(16 * expected(model, b"z", b"z"), abs=1e-2)


def test_space_at_the_end_of_a_context_belongs_to_the_choice() -> None:
    before, after = encode_pair(ByteTokens(), "Where to? ", "home")
    assert (bytes(before), bytes(after)) == (b"Where to?", b"  home")


def test_scores_count_likeliest_choices_with_and_without_length() -> None:
    model, tokens = Table(), ByteTokens()
    questions = [Question("Q", ("ab", "a much longer choice than that"), 1), Question("Q", ("xy", "zw"), 0)]
    run = TaskRun("t", questions, tokens, context=64, vocab_size=256, normed=True)
    for _ in run.slices(model):
        pass
    right = normed = 0
    for question in questions:
        values = [expected(model, b"Q", b" " + choice.encode()) for choice in question.choices]
        right += values.index(max(values)) == question.answer
        shares = [v / len(c) for v, c in zip(values, question.choices, strict=True)]
        normed += shares.index(max(shares)) == question.answer
    score = run.score()
    assert (score.questions, score.acc, score.acc_norm) == (2, right / 2, normed / 2)
    assert score.acc_stderr == pytest.approx(math.sqrt(score.acc * (1 - score.acc)))


def test_no_slice_has_more_tokens_than_it_may() -> None:
    model, tokens = Table(), ByteTokens()
    questions = [Question("c" * 300, ("x" * 300, "y" * 300, "z" * 10, "w"), 0)]
    run = TaskRun("t", questions, tokens, context=900, vocab_size=256, normed=False)
    assert len(list(run.slices(model))) == 3
    assert max(model.widths) <= SLICE_TOKENS
    assert run.score().acc_norm is None


def test_a_tokenizer_of_another_model_and_a_diverged_model_are_told() -> None:
    run = TaskRun("t", [Question("Q", ("a", "z"), 0)], ByteTokens(), context=9, vocab_size=100, normed=True)
    with pytest.raises(PsycheError, match="gives token 122, the model has 100"):
        next(run.slices(Table(100)))
    model = Table()
    nn.init.constant_(model.table, float("nan"))
    run = TaskRun("t", [Question("Q", ("a", "z"), 0)], ByteTokens(), context=9, vocab_size=256, normed=True)
    with pytest.raises(PsycheError, match="not finite"):
        list(run.slices(model))


BYTE_MODEL = {
    "seed": 7,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 256,
    "tie_word_embeddings": False,
}


def member(make_spec: Any, folder: Path, tier: int = 0, **changes: Any) -> Trainer:
    trainer = Trainer(make_spec(**changes), tier=tier, run=RUN, state_dir=folder, device="cpu")
    trainer.load()
    return trainer


def test_slices_give_the_validation_loss_of_the_trainer_at_every_tier(spec: Any, tmp_path: Path) -> None:
    run = LocalRun(spec, (0, 1, 2), tmp_path, samples=9)
    for _ in run.train(3):
        pass
    run.drain()
    full, windows = run.members[0], run.members[0].data.validation(64)
    with full.reading() as (model, weights):
        for tier, other in enumerate(run.members):
            asked = model
            if tier:
                asked = slice_model(
                    full.schema, weights, held=0, tier=tier, ffn_rescale=1.0, device=torch.device("cpu")
                )
            loss = ValidationRun(windows)
            assert len(list(loss.slices(asked))) == 1
            assert loss.loss() == pytest.approx(other.validation_loss(), rel=1e-6)


def test_a_member_evaluates_all_that_it_holds_in_slices_and_then_waits(
    make_spec: Any, tmp_path: Path
) -> None:
    write(tmp_path, "piqa", ROWS["piqa"][0], ROWS["piqa"][0])
    trainer = member(make_spec, tmp_path, checkpoint={"Init": BYTE_MODEL})
    options = EvalOptions(every=10, tasks=("piqa",), folder=tmp_path, prompt="Once", prompt_tokens=5)
    evals = MemberEvals(trainer, options)
    before = trainer.weights_hash()
    results, slices = [], 0
    while evals.is_due(3):
        found = evals.slice(3)
        slices += 1
        if found is not None:
            results.append(found)
    assert slices > len(results) + 5
    assert [(r["task"], r["tier"]) for r in results] == [
        ("validation", 2),
        ("validation", 1),
        ("validation", 0),
        ("piqa", 0),
        ("prompt", 0),
    ]
    assert {(r["first_step"], r["step"]) for r in results} == {(3, 3)}
    assert results[2]["loss"] == pytest.approx(trainer.validation_loss(), rel=1e-6)
    assert results[3]["questions"] == 2
    assert results[4]["text"].startswith("Once")
    json.dumps(results)
    assert not evals.is_due(12)
    assert evals.is_due(13)
    trainer.held.changed()
    assert trainer.weights_hash() == before


def test_training_between_two_slices_is_the_same_as_without(make_spec: Any, tmp_path: Path) -> None:
    job = TrainJob(1, 1, 0, 0, 0, [range(0, 8)])
    quiet = member(make_spec, tmp_path / "a", checkpoint={"Init": BYTE_MODEL}).train(job)
    trainer = member(make_spec, tmp_path / "b", checkpoint={"Init": BYTE_MODEL})
    evals = MemberEvals(trainer, EvalOptions(every=1, prompt="x", prompt_tokens=3))
    for _ in range(3):
        evals.slice(0)
    assert trainer.train(job).blob == quiet.blob
    while evals.is_due(0):
        evals.slice(0)


def test_an_evaluation_that_fails_ends_and_says_why(make_spec: Any, tmp_path: Path) -> None:
    trainer = member(make_spec, tmp_path, checkpoint={"Init": BYTE_MODEL})
    evals = MemberEvals(trainer, EvalOptions(every=1, prompt="x"))
    with torch.no_grad():
        for weight in trainer.held.loaded().weights.values():
            weight.fill_(float("nan"))
    results = []
    while evals.is_due(0):
        results.append(evals.slice(0))
    assert results[-1] == {
        "error": "the model's logits are not finite (its training has diverged: use an earlier checkpoint)"
    }
    assert not evals.is_due(10**9)


def test_a_trainer_without_weights_is_asked_again_later(make_spec: Any, tmp_path: Path) -> None:
    trainer = Trainer(make_spec(), tier=0, run=RUN, state_dir=tmp_path, device="cpu")
    evals = MemberEvals(trainer, EvalOptions(every=5))
    assert evals.slice(4) is None
    assert not evals.is_due(4)
    trainer.load()
    assert evals.is_due(5)
    assert evals.slice(5) is not None or evals.is_due(5)


def test_a_helper_evaluates_its_slice(make_spec: Any, tmp_path: Path) -> None:
    matformer = {"max_tier": 1, "helper_fraction": 0.25}
    table = {"Init": {**BYTE_MODEL, "intermediate_size": 128}}
    trainer = member(make_spec, tmp_path, tier=1, checkpoint=table, matformer=matformer)
    evals = MemberEvals(trainer, EvalOptions(every=5, prompt="x", prompt_tokens=2))
    results = []
    while evals.is_due(0):
        if (found := evals.slice(0)) is not None:
            results.append(found)
    assert [r["task"] for r in results] == ["validation", "prompt"]
    assert results[0]["loss"] == pytest.approx(trainer.validation_loss(), rel=1e-6)


def test_tasks_need_a_tokenizer(make_spec: Any, tmp_path: Path) -> None:
    write(tmp_path, "piqa", ROWS["piqa"][0])
    trainer = Trainer(make_spec(), tier=0, run=RUN, state_dir=tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="no tokenizer"):
        MemberEvals(trainer, EvalOptions(every=5, tasks=("piqa",), folder=tmp_path))
    MemberEvals(trainer, EvalOptions(every=5))


def test_tasks_of_a_run_whose_first_checkpoint_is_elsewhere_are_refused_and_the_loss_is_not(
    spec: Any, make_spec: Any, tmp_path: Path
) -> None:
    """A member that joins late takes agreed weights of others and may lack the first checkpoint for good."""
    first = Trainer(spec, tier=0, run=RUN, state_dir=tmp_path / "first", device="cpu")
    first.load()
    shutil.copytree(first.save(), tmp_path / "start")
    local = make_spec(checkpoint={"Local": {"path": str(tmp_path / "start")}}).resolve()
    shutil.rmtree(tmp_path / "start")
    late = Trainer(local, tier=0, run=RUN, state_dir=tmp_path / "late", device="cpu")
    late.load(agreed=True)
    for options in ({"tasks": ("piqa",), "folder": tmp_path}, {"prompt": "x"}):
        with pytest.raises(
            ConfigError,
            match=r"first checkpoint, which has the tokenizer, is not here: .*start.*--eval-tasks and --eval-prompt",
        ):
            MemberEvals(late, EvalOptions(every=5, **options))
    evals = MemberEvals(late, EvalOptions(every=5))
    assert evals.slice(0) is None  # there are no weights yet
    late.restore(first.save(), first.position)
    found = [result for _ in range(400) if (result := evals.slice(2)) is not None]
    assert {result["tier"] for result in found} == {0, 1, 2}
