"""`psyche-train`: train, generate, eval and plot-schedule as a user meets them."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from psyche_train.cli import exit_codes, plot_schedule
from psyche_train.cli.main import app, main
from psyche_train.inference.checkpoint import open_checkpoint
from psyche_train.inference.sampling import Sampler, Sampling, continuation
from psyche_train.inference.tokens import ByteTokens, TextStream
from psyche_train.local_run import LocalRun

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
run_id = "tiny"
[config]
global_batch_size_start = 4
global_batch_size_end = 6
global_batch_size_warmup_tokens = 200
total_steps = 3
init_min_clients = 1
[model.LLM]
max_seq_len = 16
[model.LLM.checkpoint.Init]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
vocab_size = 256
[model.LLM.data_location.Dummy]
num_tokens = 20_000
[model.LLM.lr_schedule.Cosine]
base_lr = 0.01
warmup_steps = 1
total_steps = 3
final_lr = 0.001
[model.LLM.optimizer.Distro]
compression_chunk = 16
compression_topk = 4
[model.LLM.matformer]
max_tier = 1
"""
PNG = b"\x89PNG\r\n\x1a\n"


class Cli:
    """Runs a command line and keeps what it wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: object) -> int:
        status = main([str(word) for word in words])
        self.out, self.err = self.capsys.readouterr()
        return status

    def ok(self, *words: object) -> str:
        assert self(*words) == exit_codes.OK, self.err
        return self.out


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `train --out` left of two members."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(CONFIG)
    words = ["train", folder / "tiny.toml", "--tiers", "0,1", "--out", folder / "out", "--device", "cpu"]
    assert main([str(word) for word in words]) == exit_codes.OK
    return folder / "out"


def test_help_comes_without_torch() -> None:
    code = "import sys, psyche_train.cli.main; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_has_words_and_an_example(cli: Cli) -> None:
    root: Any = typer.main.get_command(app)
    assert {"train", "generate", "eval", "plot-schedule"} <= set(root.commands)
    for name, command in root.commands.items():
        assert command.help, name
        assert command.epilog.startswith(f"Example: psyche-train {name} "), name
        assert all(param.help for param in command.params if param.name != "help"), name
    text = " ".join(cli.ok("--help").split())
    for name in dir(exit_codes):
        if name.isupper():
            assert f" {getattr(exit_codes, name)} " in text, name


def test_train_tells_in_json_what_it_leaves(cli: Cli, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("train", config, "--tiers", "0,1,1", "--out", out, "--every", 2, "--device", "cpu", "--json")
    lines = [json.loads(line) for line in cli.ok(*words).splitlines()]
    kinds = [line["event"] for line in lines]
    assert kinds == ["start", "validation", "step", "step", "validation", "step", "validation", "end"]
    steps = [line for line in lines if line["event"] == "step"]
    assert [line["samples"] for line in steps] == [4, 4, 5], "the batch ramps"
    assert all(len(line["losses"]) == len(line["update_bytes"]) == 3 for line in steps)
    assert min(min(line["update_bytes"]) for line in steps) > 100
    assert steps[0]["learning_rate"] == 0.01
    end = lines[-1]
    assert (end["first_step"], end["step"], end["samples"]) == (0, 3, 13)
    assert set(end["validation_losses"]) == {"0", "1"}
    assert json.loads((out / "summary.json").read_text())["weights_sha256"] == end["weights_sha256"]
    assert (out / "loss.png").read_bytes().startswith(PNG)
    assert all((Path(path) / "model.safetensors").is_file() for path in end["checkpoints"])
    assert "error" not in cli.err


def test_train_goes_on_where_it_was(cli: Cli, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("train", config, "--tiers", "0,1", "--out", out, "--device", "cpu")
    cli.ok(*words, "--steps", 2)
    found = cli.ok(*words, "--steps", 4)
    assert "going on at step 2" in cli.err
    assert "2 to 4" in found
    cli.ok(*words, "--steps", 4)
    assert json.loads((out / "summary.json").read_text())["step"] == 4
    assert cli("train", config, "--tiers", "0,1,1", "--out", out, "--device", "cpu") == exit_codes.ERROR
    assert "stand at different points (steps [0, 4])" in cli.err


def test_the_first_interrupt_ends_after_the_round(
    cli: Cli, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = LocalRun.train

    def interrupted(self: LocalRun, steps: int) -> Iterator[Any]:
        for round_ in train(self, steps):
            signal.raise_signal(signal.SIGINT)
            yield round_

    monkeypatch.setattr(LocalRun, "train", interrupted)
    out, before = tmp_path / "out", signal.getsignal(signal.SIGINT)
    assert cli("train", config, "--out", out, "--device", "cpu") == exit_codes.INTERRUPTED
    assert "ending after this round" in cli.err
    assert json.loads((out / "summary.json").read_text())["step"] == 1
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("train", "CONFIG", "--tiers", "0,x"), exit_codes.USAGE, "'0,x' is not a list of tiers"),
        (("train", "CONFIG", "--tiers", "2"), exit_codes.USAGE, "has tiers 0 to 1"),
        (("train", "CONFIG", "--device", "cuda:99"), exit_codes.USAGE, "is not on this machine"),
        (("train", "CONFIG", "--set", "x"), exit_codes.CONFIG, "is not KEY=VALUE"),
        (("train", "CONFIG", "--set", "max_seq_len=1"), exit_codes.CONFIG, "max_seq_len = 1, it must be"),
        (("train", "CONFIG", "--set", "max_seq_len.a=1"), exit_codes.CONFIG, "is a value in the file"),
        (
            ("train", "CONFIG", "--set", "nonsense=1"),
            exit_codes.CONFIG,
            "model.LLM.nonsense is not a known key",
        ),
        (("train", "missing.toml"), exit_codes.CONFIG, "there is no such file"),
        (("train", "CONFIG", "--steps", "0"), exit_codes.USAGE, ""),
        (
            ("plot-schedule", "CONFIG", "--set", "lr_schedule.Cosine.warmup_steps=3"),
            exit_codes.CONFIG,
            "model.LLM.lr_schedule.Cosine: warmup_steps = 3 must be below total_steps = 3",
        ),
        (("plot-schedule", "CONFIG", "-o", "/dev/null/x.png"), exit_codes.ERROR, "/dev/null: file exists"),
        (("generate", "missing"), exit_codes.NOT_FOUND, "missing does not exist"),
        (("generate", "CONFIG"), exit_codes.CONFIG, "is not a directory"),
        (("generate", "EMPTY"), exit_codes.CONFIG, "holds no checkpoint"),
        (("generate", "TRAINED", "--tier", "2", "--max-tokens", "1"), exit_codes.OK, ""),
        (("generate", "TRAINED", "--tier", "9"), exit_codes.CONFIG, "tier 9 needs a feed-forward width"),
        (("generate", "TRAINED", "--temperature", "-1"), exit_codes.USAGE, "temperature = -1, allowed"),
        (("generate", "TRAINED", "--top-p", "0"), exit_codes.USAGE, "top-p = 0, allowed"),
        (("generate", "TRAINED", "--top-k", "-1"), exit_codes.USAGE, "top-k = -1, allowed"),
        (("eval", "TRAINED"), exit_codes.USAGE, "there is nothing to measure"),
        (("eval", "TRAINED", "--tasks", "x"), exit_codes.USAGE, "there is no task 'x'"),
        (("eval", "TRAINED", "--tasks", "piqa", "--task-dir", "EMPTY"), exit_codes.NOT_FOUND, "piqa.jsonl"),
    ],
)
def test_bad_input_is_a_sentence(
    cli: Cli, config: Path, trained: Path, tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    paths = {"CONFIG": str(config), "TRAINED": str(trained), "EMPTY": str(tmp_path / "empty")}
    found = cli(*(paths.get(word, word) for word in words))
    assert (found, said in " ".join(cli.err.split())) == (status, True), cli.err
    assert "Traceback" not in cli.err
    assert status == exit_codes.OK or cli.out == ""


def test_generate_gives_the_same_text_for_the_same_seed(cli: Cli, trained: Path) -> None:
    words = ("generate", trained, "--prompt", "ab", "--max-tokens", 30, "--device", "cpu", "--json")
    texts = [json.loads(cli.ok(*words, "--seed", seed)) for seed in (1, 1, 2)]
    assert texts[0]["text"] == texts[1]["text"] != texts[2]["text"]
    assert (texts[0]["tokens"], texts[0]["ended"], texts[0]["tier"]) == (30, False, 0)
    first = json.loads(cli.ok(*words, "--temperature", 0))["text"]
    assert json.loads(cli.ok(*words, "--top-k", 1, "--seed", 5))["text"] == first
    assert json.loads(cli.ok(*words, "--top-p", 1e-9, "--seed", 6))["text"] == first
    checkpoint = json.loads((trained / "summary.json").read_text())["checkpoints"][0]
    for path in (trained / "members" / "0", trained / "members" / "0" / "checkpoints", checkpoint):
        assert json.loads(cli.ok("generate", path, *words[2:], "--temperature", 0))["text"] == first


def test_a_slice_and_the_slice_of_the_whole_say_the_same(cli: Cli, trained: Path) -> None:
    words = ("--prompt", "ab", "--max-tokens", 20, "--temperature", 0, "--device", "cpu", "--json")
    cut = json.loads(cli.ok("generate", trained / "members" / "1", *words))
    taken = json.loads(cli.ok("generate", trained / "members" / "0", "--tier", 1, *words))
    assert (cut["tier"], cut["text"], cut["parameters"]) == (1, taken["text"], taken["parameters"])
    assert cli("generate", trained / "members" / "1", "--tier", 0) == exit_codes.CONFIG
    assert "holds only tier 1" in cli.err


def test_an_export_says_what_the_checkpoint_says(cli: Cli, trained: Path, tmp_path: Path) -> None:
    """An export is an ordinary model whose projections hold the factor."""
    from transformers import LlamaConfig, LlamaForCausalLM

    checkpoint = Path(json.loads((trained / "summary.json").read_text())["checkpoints"][1])
    opened = open_checkpoint(checkpoint, tier=None, device=torch.device("cpu"))
    assert opened.factor == 2.0
    tables = json.loads((checkpoint / "config.json").read_text())
    model = LlamaForCausalLM(LlamaConfig(**{**tables, "matformer_export": True}))
    weights = {
        name: value * (2.0 if "down_proj" in name else 1.0)
        for name, value in opened.model.state_dict().items()
    }
    model.load_state_dict(weights)
    model.save_pretrained(tmp_path / "export")
    words = ("--prompt", "ab", "--max-tokens", 20, "--temperature", 0, "--device", "cpu", "--json")
    ours, theirs = (
        json.loads(cli.ok("generate", path, *words)) for path in (checkpoint, tmp_path / "export")
    )
    assert (ours["text"], ours["tier"]) == (theirs["text"], theirs["tier"])
    assert cli("generate", tmp_path / "export", "--tier", 1) == exit_codes.CONFIG
    assert "is an export of one width" in cli.err
    (tmp_path / "export" / "model.safetensors").write_bytes(b"torn")
    assert cli("generate", tmp_path / "export") == exit_codes.CONFIG
    assert "cannot be opened as a model" in cli.err


def test_what_a_model_says_cannot_steer_the_terminal(
    cli: Cli, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(b"\x1b[2J\tb\n\xc3\xa9\x07" * 4)
    monkeypatch.setattr(Sampler, "pick", lambda self, logits: next(said))
    out = cli.ok("generate", trained, "--prompt", "a\x1b]0;x\x07", "--max-tokens", 11, "--device", "cpu")
    assert out == "a\\u001b]0;x\\u0007\\u001b[2J\tb\né\\u0007\\u001b\n"


def test_a_prompt_from_standard_input_may_be_longer_than_the_context(
    cli: Cli, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("long " * 50))
    out = cli.ok("generate", trained, "--prompt", "-", "--max-tokens", 5, "--device", "cpu")
    assert out.startswith("long " * 50)
    assert "the prompt has 250 tokens; the model sees the last 16" in cli.err


def test_a_model_with_another_vocabulary_needs_its_tokenizer(cli: Cli, trained: Path, tmp_path: Path) -> None:
    table = ("--set", "checkpoint.Init.vocab_size=300", "--steps", 1, "--samples", 2)
    (tmp_path / "tiny.toml").write_text(CONFIG)
    cli.ok("train", tmp_path / "tiny.toml", *table, "--out", tmp_path / "out", "--device", "cpu")
    assert cli("generate", tmp_path / "out") == exit_codes.CONFIG
    assert "has no tokenizer, and a vocabulary of 300 tokens is not that of bytes" in cli.err


def test_continuation_is_the_same_with_and_without_what_was_computed(trained: Path) -> None:
    checkpoint = Path(json.loads((trained / "summary.json").read_text())["checkpoints"][0])
    opened = open_checkpoint(checkpoint, tier=None, device=torch.device("cpu"))
    texts = [
        list(
            continuation(
                opened.model,
                [97, 98],
                max_tokens=30,
                context=opened.context,
                sampler=Sampler(Sampling(temperature=0)),
                cached=cached,
            )
        )
        for cached in (True, False)
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 30
    end = frozenset([texts[0][3]])
    cut = continuation(
        opened.model,
        [97, 98],
        max_tokens=30,
        context=opened.context,
        sampler=Sampler(Sampling(temperature=0)),
        end=end,
    )
    assert list(cut) == texts[0][: texts[0].index(texts[0][3])]


def test_a_stream_gives_whole_characters_and_loses_nothing() -> None:
    for data in ("aé🧪x".encode(), b"\xff\xfe\x80abc\xc3", b"\xf0\x9f\xa7", bytes(range(256)), b""):
        stream = TextStream(ByteTokens())
        pieces = [stream.push(byte) for byte in data] + [stream.flush()]
        if data.startswith(b"a"):
            assert "".join(pieces) == data.decode()
            assert "\ufffd" not in "".join(pieces)
        assert "abc" in "".join(pieces) or b"abc" not in data
        assert stream.flush() == ""


def test_sampling_keeps_to_its_limits() -> None:
    logits = torch.tensor([0.0, 5.0, 4.0, -50.0, 5.0])
    assert {Sampler(Sampling(temperature=0, seed=s)).pick(logits) for s in range(5)} == {1}
    assert {Sampler(Sampling(temperature=50, top_k=3, seed=s)).pick(logits) for s in range(60)} == {1, 2, 4}
    assert {Sampler(Sampling(top_p=0.5, seed=s)).pick(logits) for s in range(60)} <= {1, 4}
    for bad in (float("nan"), float("inf")):
        with pytest.raises(Exception, match="not finite"):
            Sampler(Sampling()).pick(torch.tensor([0.0, bad]))


def test_eval_measures_every_tier_as_training_did(cli: Cli, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "piqa.jsonl").write_text('{"goal": "Cool", "sol1": "ice", "sol2": "fire", "label": 0}\n' * 3)
    config = trained.parent / "tiny.toml"
    words = (
        "eval",
        trained,
        "--config",
        config,
        "--tasks",
        "piqa",
        "--task-dir",
        tmp_path,
        "--device",
        "cpu",
    )
    results = json.loads(cli.ok(*words, "--json"))["results"]
    losses = {str(row["tier"]): row["loss"] for row in results if row["task"] == "validation"}
    told = json.loads((trained / "summary.json").read_text())["validation_losses"]
    assert losses == pytest.approx(told, rel=1e-6)
    assert results[-1]["questions"] == 3
    assert {results[-1]["acc"], results[-1]["acc_norm"]} <= {0.0, 1.0}
    table = cli.ok(*words, "--tier", 1, "--limit", 2).splitlines()
    assert [line.split()[:3] for line in table[1:]] == [["validation", "1", "-"], ["piqa", "1", "2"]]


def test_plot_schedule_shows_and_draws(cli: Cli, config: Path, tmp_path: Path) -> None:
    png = tmp_path / "new" / "schedule.png"
    out = cli.ok("plot-schedule", config, "-o", png)
    assert png.read_bytes().startswith(PNG)
    assert not list(png.parent.glob(".*"))
    assert [line.split()[0] for line in out.splitlines()[4:]] == ["0", "1", "2"]
    assert plot_schedule.BLOCKS[-1] in out
    rows = json.loads(cli.ok("plot-schedule", config, "--json", "--steps", 2))
    assert rows[0] == {"step": 0, "learning_rate": 0.01, "samples": 4, "tokens": 0, "what": "first step"}
    assert "the run ends before step 3" in cli.err
    config.write_text(CONFIG.replace("[config]", "[other]"))
    assert "learning rate" in cli.ok("plot-schedule", config)
    assert "samples" not in cli.out


def test_sparklines() -> None:
    assert plot_schedule.sparkline([0, 1, 2]) == "▁▅█"
    assert plot_schedule.sparkline([0.0, 0.0]) == "▁▁"
