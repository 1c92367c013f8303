"""Data sets of the Hub are pinned by their commit; a run's tokenizer goes with its checkpoints and exports."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from psyche_train.checkpoints.remote import publish
from psyche_train.cli.main import main
from psyche_train.data import documents
from psyche_train.data.documents import HubSplit
from psyche_train.data.errors import DataError
from psyche_train.local_run import RUN
from psyche_train.matformer.export import export_model
from psyche_train.matformer.slice import cut_checkpoint
from psyche_train.trainer import Trainer
from tests.train.checkpoints.conftest import save_llama
from tests.train.data.shards import tokens_of, write_prepared

WORDS = ["hello", "world", "the", "<eos>"]


@pytest.fixture
def hub_data(standin, tmp_path, monkeypatch):
    """A repository with two commits; what a commit holds is one row of its own."""
    monkeypatch.setenv("PSYCHE_DATA_CACHE", str(tmp_path / "data-cache"))
    publish(save_llama(tmp_path / "one"), "hub:org/data")
    old = standin.repos["org/data"].branches["main"]
    asked: list[str] = []

    def rows(self: HubSplit):
        import datasets

        asked.append(self.revision)
        text = f"revision {self.revision} " * 300
        return datasets.Dataset.from_dict({"text": [text] * 8}).to_iterable_dataset()

    monkeypatch.setattr(HubSplit, "_open", rows)

    def newer() -> str:
        publish(save_llama(tmp_path / "two", seed=1), "hub:org/data")
        return standin.repos["org/data"].branches["main"]

    return old, newer, asked


@pytest.mark.parametrize("revision", ["", "main"])
def test_a_data_set_that_moves_on_is_the_same_for_every_member(make_spec, hub_data, revision):
    old, newer, asked = hub_data
    spec = make_spec(data_location={"Hub": {"repo_id": "org/data", "revision": revision}}).resolve()
    assert spec.data_location.chosen.revision == old
    assert newer() != old
    again = spec.resolve()
    assert again == spec
    assert set(asked) == {old}


def test_a_commit_is_kept_and_a_folder_needs_none(make_spec, tmp_path):
    assert documents.pinned("org/none", "a" * 40) == "a" * 40
    assert documents.pinned(str(tmp_path), "") == ""


def test_a_data_set_without_a_commit_is_refused(standin):
    with pytest.raises(DataError, match="org/none cannot be read: its commit is not known"):
        documents.pinned("org/none", "")
    with pytest.raises(DataError, match="cannot be read"):
        documents.pinned("not a name/at all/x", "")


def test_a_preparation_goes_on_with_the_commit_it_began_with(hub_data, tmp_path, monkeypatch):
    old, newer, asked = hub_data
    command = ["prepare-data", "org/data", "--dataset", "--out", str(tmp_path / "out")]
    with monkeypatch.context() as broken:
        broken.setattr("psyche_train.data.prepare._Preparation._finish", lambda self, highest: 1 / 0)
        assert main(command) != 0
    moved = newer()
    assert main(command) == 0
    assert set(asked) == {old}
    assert f"org/data@{old}" in (tmp_path / "out" / "source.json").read_text()
    assert main([*command, "--revision", moved]) != 0


def word_tokenizer(folder: Path) -> Path:
    """`tokenizer.json` and its configuration, of four words."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="the"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def data_of(kind: str, folder: Path) -> dict[str, object]:
    words = word_tokenizer(folder / "words")
    if kind == "Parquet":
        pq.write_table(pa.table({"text": ["hello the world " * 4000]}), folder / "texts.parquet")
        return {"Parquet": {"path": str(folder / "texts.parquet"), "tokenizer": str(words)}}
    write_prepared(folder / "prepared", tokens_of(60_000, below=4), [40_000], dtype="<u1")
    word_tokenizer(folder / "prepared")
    return {kind: {"path": str(folder / "prepared")}}


@pytest.mark.parametrize("kind", ["Parquet", "Local", "Peers"])
def test_the_tokenizer_of_the_data_goes_into_checkpoints_slices_and_exports(
    make_spec, tmp_path, monkeypatch, kind
):
    monkeypatch.setenv("PSYCHE_DATA_CACHE", str(tmp_path / "data-cache"))
    spec = make_spec(data_location=data_of(kind, tmp_path)).resolve()
    member = Trainer(spec, tier=0, run=RUN, state_dir=tmp_path / "0", device="cpu")
    member.load()
    saved = member.save()
    cut_checkpoint(saved, tmp_path / "cut", [1])
    export_model(saved, tmp_path / "export")
    export_model(tmp_path / "cut" / "tier1", tmp_path / "small")
    for folder in (saved, tmp_path / "cut" / "tier1", tmp_path / "export", tmp_path / "small"):
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        assert tokenizer("hello world", add_special_tokens=False)["input_ids"] == [0, 1]
        assert tokenizer.eos_token == "<eos>"


def test_the_tokenizer_of_the_first_checkpoint_comes_before_that_of_the_data(make_spec, tmp_path):
    first = save_llama(tmp_path / "first")
    data = data_of("Local", tmp_path)
    spec = make_spec(checkpoint={"Local": {"path": str(first)}}, data_location=data).resolve()
    member = Trainer(spec, tier=1, run=RUN, state_dir=tmp_path / "1", device="cpu")
    member.load()
    saved = member.save()
    assert (saved / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()


def test_a_tokenizer_that_is_damaged_stops_nothing(make_spec, tmp_path, monkeypatch):
    monkeypatch.setenv("PSYCHE_DATA_CACHE", str(tmp_path / "data-cache"))
    spec = make_spec(data_location=data_of("Parquet", tmp_path)).resolve()
    member = Trainer(spec, tier=0, run=RUN, state_dir=tmp_path / "0", device="cpu")
    member.load()
    (tmp_path / "words" / "tokenizer.json").write_text("{")
    assert not (member.save() / "tokenizer.json").exists()
