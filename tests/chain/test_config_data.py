"""`[model.LLM.data_location]` of a run's TOML: every kind is read, and what is wrong is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from psyche_chain.admin.update import spec_bytes
from psyche_chain.cli.main import main
from psyche_chain.config import load_config
from psyche_chain.errors import ConfigError
from psyche_train.spec import TrainSpec
from tests.e2e.cluster import TINY

DUMMY = "[model.LLM.data_location.Dummy]\nnum_tokens = 200000"


def config(tmp_path: Path, table: str) -> Path:
    path = tmp_path / "run.toml"
    text = TINY.format(steps=5)
    assert DUMMY in text
    path.write_text(text.replace(DUMMY, table))
    return path


@pytest.mark.parametrize(
    "table",
    [
        "[model.LLM.data_location.Stdlib]",
        '[model.LLM.data_location.Local]\npath = "x"\ntoken_size_in_bytes = "FourBytes"',
        '[model.LLM.data_location.Http]\nlocation.Folder = "https://example.org/data"',
        '[model.LLM.data_location.Http.location]\nSingleUrl = "gs://bucket/a.bin"',
        '[model.LLM.data_location.Http.location.NumberedFiles]\nurl_template = "https://x/{}.bin"\nnum_files = 9',
        '[model.LLM.data_location.Hub]\nrepo_id = "a/b"\nmax_tokens = 1000000\ntokenizer = "gpt2"',
        '[model.LLM.data_location.Parquet]\npath = "x"\nsequences = true\nlabels_column = "l"',
        f'[model.LLM.data_location.Peers]\nmanifest = "{"ab" * 32}"',
        '[[model.LLM.data_location.Weighted.sources]]\nweight = 3\nLocal = { path = "x" }\n'
        "[[model.LLM.data_location.Weighted.sources]]\nweight = 1\nDummy = { num_tokens = 90000 }",
    ],
)
def test_every_source_is_read_and_fits_the_chain(tmp_path: Path, table: str) -> None:
    spec = load_config(config(tmp_path, table)).spec
    assert TrainSpec.from_bytes(spec.to_bytes()) == spec


def test_psyches_own_key_for_shuffling_is_named_in_a_warning(tmp_path: Path) -> None:
    table = '[model.LLM.data_location.Http]\nshuffle = "DontShuffle"\nlocation.SingleUrl = "https://x/a.bin"'
    assert "seed" in load_config(config(tmp_path, table)).warnings[0]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "[model.LLM.data_location.Dummy]\nnum_tokens = 2000",
            "data_location.Dummy: 2000 tokens are too few",
        ),
        ('[model.LLM.data_location.Local]\npaht = "x"', "did you mean path?"),
        ('[model.LLM.data_location.Http]\nlocation.Folder = "no url"', "it must match"),
        (
            "[model.LLM.data_location.Http.location]",
            "choose exactly one of Folder, SingleUrl, Urls, NumberedFiles",
        ),
        ('[model.LLM.data_location.Parquet]\npath = "x"\nlabels_column = "l"', "sequences = true is needed"),
        ("[[model.LLM.data_location.Weighted.sources]]\nweight = 1\nDummy = {}", "at least 2"),
        (
            "[[model.LLM.data_location.Weighted.sources]]\nDummy = {}\n"
            "[[model.LLM.data_location.Weighted.sources]]\nweight = 1\nDummy = {}",
            "sources[0].weight is missing",
        ),
        (
            "[model.LLM.data_location.Stdlib]\nmax_bytes = 10000\nvalidation_fraction = 0.01",
            "too few for windows",
        ),
    ],
)
def test_what_is_wrong_with_the_data_is_told_by_validate_config(
    tmp_path: Path, table: str, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(config(tmp_path, table))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            '[model.LLM.data_location.Local]\npath = "/no/such/file.bin"',
            "get the run's data, or correct the path",
        ),
        ("[model.LLM.data_location.Peers]", "make it with psyche-train prepare-data"),
        (f'[model.LLM.data_location.Peers]\nmanifest = "{"ab" * 32}"', "the run's data are with peers"),
        ('[model.LLM.data_location.Parquet]\npath = "/no/such"', "is neither a file nor a folder here"),
        ('[model.LLM.data_location.Hub]\nrepo_id = "/no/such/set"', "cannot be read"),
        ('[model.LLM.data_location.Http]\nlocation.Folder = "nosuch://x"', "cannot be read here"),
    ],
)
def test_data_that_are_not_here_are_told_when_the_run_is_created(
    tmp_path: Path, table: str, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        spec_bytes(load_config(config(tmp_path, table)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("optimizer", "status", "message"),
    [
        ("AdamW", 3, "model.LLM: optimizer.AdamW: an update of this model"),
        ("Distro", 0, "valid"),
    ],
)
def test_updates_that_no_member_could_hand_over_are_told_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], optimizer: str, status: int, message: str
) -> None:
    path = config(tmp_path, DUMMY)
    text = path.read_text()
    large = {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 6,
        "num_attention_heads": 64,
    }
    for key, value in large.items():
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
    text = re.sub(r"\[model\.LLM\.optimizer\.Distro\]\n(.+\n)*", f"[model.LLM.optimizer.{optimizer}]\n", text)
    path.write_text(text)
    assert main(["validate-config", str(path)]) == status
    assert message in "".join(capsys.readouterr())
    if status:
        with pytest.raises(ConfigError, match=r"optimizer\.AdamW.*choose optimizer\.Distro"):
            spec_bytes(load_config(path))


def test_a_described_model_that_does_not_exist_is_told_by_validate_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, DUMMY)
    text = re.sub(
        r"\[model\.LLM\.checkpoint\.Init\]\n(.+\n)*",
        '[model.LLM.checkpoint.Init]\nconfig = { model_type = "no-such-model" }\n',
        path.read_text(),
    )
    path.write_text(text.replace('"HfLlama"', '"HfAuto"'))
    assert main(["validate-config", str(path)]) == 3
    assert "no-such-model" in capsys.readouterr().err
