"""Prepared data: the same bytes whatever happened on the way, from every kind of input."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from psyche_train.cli.main import main
from psyche_train.data import documents, prepare
from psyche_train.data.dataset import Dataset
from psyche_train.data.documents import Columns, TextFile, find_parts
from psyche_train.data.encoders import load_encoder
from psyche_train.data.errors import DataError
from psyche_train.data.local import open_local
from psyche_train.data.prepare import Options


def contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file() and f.name != ".lock"}


def tokens_in(folder: Path) -> list[int]:
    tokens = open_local(folder, None)
    return tokens.read(np.zeros(1, dtype=np.int64), tokens.num_tokens)[0].tolist()


def prepared(folder: Path, out: Path, *, tokenizer: str = "bytes", columns: Columns | None = None, **options):
    parts = find_parts([folder], columns or Columns())
    return prepare.prepare(parts, load_encoder(tokenizer), out, Options(**options))


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Every kind of file, two megabytes together."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.txt").write_text("béta line\n" * 40_000)
    (folder / "sub" / "a.md").write_text("alpha " * 100_000)
    rows = [{"text": f"row {i} " * (i % 50), "other": i} for i in range(3000)]
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    (folder / "d.jsonl.gz").write_bytes(gzip.compress(b'{"text": "packed"}\n'))
    pq.write_table(
        pa.table({"text": [f"parquet {i}" for i in range(5000)]}), folder / "e.parquet", row_group_size=700
    )
    (folder / "ignored.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.txt").write_text("no")
    return folder


def test_all_kinds_of_input_follow_each_other_in_the_order_of_their_paths(inputs: Path, tmp_path: Path):
    manifest = prepared(inputs, tmp_path / "out", shard_bytes=1 << 18, end_of_text=0)
    texts = [
        ("béta line\n" * 40_000),
        *(f"row {i} " * (i % 50) for i in range(3000) if i % 50),
        "packed",
        *(f"parquet {i}" for i in range(5000)),
        "alpha " * 100_000,
    ]
    assert bytes(tokens_in(tmp_path / "out")) == b"".join(text.encode() + b"\0" for text in texts)
    lengths = [shard.length for shard in manifest.shards]
    assert set(lengths[:-1]) == {1 << 18}
    assert 0 < lengths[-1] <= 1 << 18


class Killed(BaseException):
    pass


@settings(max_examples=15)
@given(st.lists(st.integers(1, 30), max_size=6))
def test_interruption_at_any_write_changes_nothing_of_the_result(tmp_path_factory, moments):
    root = tmp_path_factory.mktemp("resume")
    (root / "in").mkdir()
    for name in "ab":
        (root / "in" / f"{name}.txt").write_bytes(bytes(range(256)) * 1900 + name.encode())
    (root / "in" / "d.jsonl").write_text(
        "".join(json.dumps({"text": str(i) * 700}) + "\n" for i in range(400))
    )
    whole = prepared(root / "in", root / "whole", shard_bytes=1 << 18, end_of_text=7)
    real = os.fsync
    for moment in moments:
        left = moment

        def fsync(descriptor):
            nonlocal left
            left -= 1
            if not left:
                raise Killed
            return real(descriptor)

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(os, "fsync", fsync)
            prepared(root / "in", root / "cut", shard_bytes=1 << 18, end_of_text=7)
    assert prepared(root / "in", root / "cut", shard_bytes=1 << 18, end_of_text=7) == whole
    assert contents(root / "cut") == contents(root / "whole")


@pytest.mark.parametrize("moment", [0, 2])
def test_killed_command_goes_on_and_gives_the_same_bytes(tmp_path: Path, moment):
    source = tmp_path / "in.txt"
    source.write_bytes(os.urandom(6 << 20).hex().encode())
    command = [
        sys.executable,
        "-m",
        "psyche_train.cli",
        "prepare-data",
        str(source),
        "--shard-mib",
        "1",
        "--json",
    ]
    first = subprocess.Popen([*command, "--out", str(tmp_path / "cut")], stdout=subprocess.DEVNULL)
    wanted = tmp_path / "cut" / f"shard-{moment * 4:05}.bin"
    while not wanted.exists() and first.poll() is None:
        pass
    first.send_signal(signal.SIGKILL)
    first.wait(20)
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "cut")], capture_output=True, text=True, check=True
    )
    values = json.loads(done.stdout)
    assert values["tokens"] == 12 << 20
    data = b"".join((tmp_path / "cut" / f"shard-{i:05}.bin").read_bytes() for i in range(values["shards"]))
    assert data == source.read_bytes()


def test_complete_folder_is_left_alone_and_one_of_other_inputs_is_refused(inputs: Path, tmp_path: Path):
    first = prepared(inputs, tmp_path / "out")
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / "out").glob("shard*")}
    assert prepared(inputs, tmp_path / "out") == first
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "out").glob("shard*")} == stamps
    with pytest.raises(DataError, match="made of other inputs"):
        prepared(inputs, tmp_path / "out", end_of_text=3)
    (inputs / "z.txt").write_text("new")
    with pytest.raises(DataError, match="made of other inputs"):
        prepared(inputs, tmp_path / "out")
    (tmp_path / "out" / "source.json").write_text("{")
    with pytest.raises(DataError, match=r"source\.json is damaged"):
        prepared(inputs, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("mine")
    with pytest.raises(DataError, match=r"holds other files \(thesis\.doc\)"):
        prepared(inputs, tmp_path / "full")


@given(st.binary(max_size=3000), st.integers(64, 300))
def test_long_text_is_cut_without_loss(tmp_path_factory, text, block):
    path = tmp_path_factory.mktemp("long") / "t.txt"
    path.write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "MAX_TEXT_BYTES", block)
        found = list(TextFile(path, "t", len(text)).documents(0))
        assert list(TextFile(path, "t", len(text)).documents(2)) == found[2:]
    assert b"".join(document.content for document in found) == text
    assert [document.ends for document in found] == [False] * (len(found) - 1) + [True] * bool(found)
    assert all(len(document.content) <= block for document in found)


def word_tokenizer(folder: Path) -> Path:
    """A `tokenizer.json` of a few words."""
    folder.mkdir()
    vocabulary = {"<eos>": 0, "<unk>": 1, "one": 2, "two": 3, "three": 300}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>"})
    )
    return folder


def test_tokenizer_of_a_folder_is_used_and_goes_with_the_data(tmp_path: Path, capsys):
    from transformers import AutoTokenizer

    tokenizer = word_tokenizer(tmp_path / "tok")
    (tmp_path / "a.jsonl").write_text('{"body": "one two"}\n{"body": ""}\n{"body": "three four <eos>"}\n')
    arguments = ["prepare-data", str(tmp_path / "a.jsonl"), "--column", "body", "--tokenizer", str(tokenizer)]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert tokens_in(tmp_path / "out") == [2, 3, 0, 300, 1, 0, 0]
    printed = capsys.readouterr().out
    assert "[model.LLM.data_location.Peers]" in printed
    assert "vocab_size of at least 301" in printed
    assert AutoTokenizer.from_pretrained(tmp_path / "out").decode([2, 3]) == "one two"
    assert main([*arguments, "--out", str(tmp_path / "none"), "--end-of-text", "none"]) == 0
    assert tokens_in(tmp_path / "none") == [2, 3, 300, 1, 0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            b'{"text": "x"}\n{"tex": "y"}\n',
            r"a\.jsonl, line 2 has no column 'text' \(it has tex\)",
        ),
        ("a.jsonl", b'{"text": "x"}\nnot json\n', r"a\.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'{"text": {"a": 1}}\n', "holds dict, neither text nor a list"),
        ("a.jsonl", b'{"text": [1, 2.5]}\n', "holds list, neither text nor a list"),
        ("a.jsonl", b'{"text": [1, -5]}\n', "a token that is not in 0"),
        ("a.jsonl", b'{"text": [1, 300]}\n', "token 300 does not fit 1 bytes"),
        ("a.jsonl", b'["text"]\n', "no columns"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "is no valid text"),
        ("a.jsonl", b"\n\n", "the inputs hold no text"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\x00garbage", r"a\.jsonl\.gz cannot be read"),
        ("a.parquet", b"PAR1 no more", r"a\.parquet cannot be read as Parquet"),
    ],
)
def test_broken_input_is_named(tmp_path: Path, name, content, message, capsys):
    (tmp_path / name).write_bytes(content)
    assert main(["prepare-data", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 3
    with pytest.raises(DataError, match=message):
        prepare.prepare(
            find_parts([tmp_path / name], Columns()), load_encoder("bytes"), tmp_path / "out2", Options()
        )
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.txt"], "neither a file nor a folder"),
        (["."], "holds no files that are read"),
        (["t.txt", "--tokenizer", "no/where.json"], "cannot be read"),
        (["t.txt", "--tokenizer", "t.txt"], "is not a tokenizer.json"),
        (["t.txt", "--tokenizer", "no-such-model-here"], "neither here nor on the Hub"),
        (["t.txt", "--end-of-text", "maybe"], "allowed are auto, none"),
        (["t.txt", "--end-of-text", "256"], "--end-of-text 256 does not fit tokens of 1 bytes"),
        (["t.txt", "--token-bytes", "3"], "allowed are 1, 2 and 4"),
        (["t.txt", "--labels", "l"], "--labels needs --sequences"),
        (["t.txt", "--sequences", "5"], "has 9 tokens, samples have 6"),
        (["no/such/set", "--dataset"], "cannot be read"),
    ],
)
def test_wrong_arguments_are_an_error_with_what_to_do(
    tmp_path: Path, monkeypatch, capsys, arguments, message
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if arguments[0] == "t.txt":
        Path("t.txt").write_text("some text")
    assert main(["prepare-data", *arguments, "--out", str(tmp_path / "out")]) == 3
    shown = capsys.readouterr().err.replace("\n", " ")
    assert message in shown
    assert "Traceback" not in shown


def test_max_tokens_ends_after_the_document_that_reaches_it(inputs: Path, tmp_path: Path):
    manifest = prepared(inputs, tmp_path / "out", max_tokens=440_001, shard_bytes=1 << 18)
    assert manifest.num_tokens == 40_000 * 11 + len("row 1 ")


def sequences(tmp_path: Path, rows: list[dict]) -> Path:
    table = pa.table({key: [row[key] for row in rows] for key in rows[0]})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=5)
    return tmp_path / "rows.parquet"


def parquet_spec(make_spec, path: Path, **more):
    return make_spec(data_location={"Parquet": {"path": str(path), "column": "ids", **more}}, max_seq_len=7)


def test_rows_become_samples_with_hidden_labels_and_padding(make_spec, tmp_path: Path):
    rows = [{"ids": [i % 90 + 1] * (3 + i % 5), "l": [-100] + [i % 90 + 1] * (2 + i % 5)} for i in range(800)]
    path = sequences(tmp_path, rows)
    spec = parquet_spec(make_spec, path, sequences=True, labels_column="l").resolve()
    data = Dataset(spec, 160)
    samples = data.batch([range(data.num_train)]).tolist()
    assert data.num_train + data.num_held_out == 800
    expected = [[-100 - row["ids"][0], *row["ids"][1:], *[-100] * (8 - len(row["ids"]))] for row in rows]
    assert all(sample in expected for sample in samples)
    other = make_spec(data_location=spec.data_location.model_dump(exclude_none=True), max_seq_len=9)
    with pytest.raises(DataError, match="gives manifest"):
        Dataset(other, 160)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"ids": [1] * 9, "l": [1] * 9}, "row 3 has 9 tokens, samples have 8"),
        ({"ids": [1, 2, 3], "l": [2, 3, -100]}, "label 0 is 2, the token there is 1: labels are the tokens"),
        ({"ids": [1, 2, 3], "l": [1, 2]}, "has 2 labels for 3 tokens"),
        ({"ids": [1, 2, 3], "l": [1, -100, -100]}, "has nothing to learn"),
    ],
)
def test_sample_that_cannot_be_is_named(make_spec, tmp_path: Path, row, message):
    path = sequences(tmp_path, [{"ids": [5, 6], "l": [5, 6]}] * 3 + [row])
    with pytest.raises(DataError, match=message):
        parquet_spec(make_spec, path, sequences=True, labels_column="l").resolve()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"other": ["a"]}, r"has no column 'ids' \(it has other\)"),
        ({"ids": [1.5]}, "holds float, neither text"),
        ({"ids": [[1.5]]}, "neither text nor a list of whole numbers"),
        ({"ids": [[[1]]]}, "neither text nor a list of whole numbers"),
    ],
)
def test_parquet_of_another_schema_is_refused(make_spec, tmp_path: Path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=message):
        parquet_spec(make_spec, tmp_path / "t.parquet").resolve()


def test_parquet_documents_are_a_stream_and_converted_once(make_spec, tmp_path: Path, monkeypatch):
    for name, start in (("b", 5), ("a", 1)):
        pq.write_table(
            pa.table({"ids": [[start + i % 3] * 20 for i in range(500)]}), tmp_path / f"{name}.parquet"
        )
    spec = parquet_spec(make_spec, tmp_path).resolve()
    assert len(spec.data_location.chosen.manifest) == 64
    data = Dataset(spec, 160)
    assert data.num_train + data.num_held_out == 20_000 // 8
    monkeypatch.setattr(documents.ParquetFile, "documents", lambda self, skip: iter(()) if skip else _first())
    assert (Dataset(spec, 160).batch([range(50)]) == data.batch([range(50)])).all()


def _first():
    yield documents.Document("x", [1])


def hub_layout(folder: Path, texts: list[str]) -> Path:
    """A data set as a repository of the Hub holds it: a card, and Parquet files named after their splits."""
    (folder / "data").mkdir(parents=True)
    for number, part in enumerate(np.array_split(np.array(texts, dtype=object), 2)):
        table = pa.table({"text": part.tolist()})
        pq.write_table(table, folder / "data" / f"train-{number:05}-of-00002.parquet")
    pq.write_table(pa.table({"text": ["held back"]}), folder / "data" / "test-00000-of-00001.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
        "  - split: test\n    path: data/test-*\n---\n"
    )
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return hub_layout(tmp_path / "set", [f"document {i} of the set. " * 3 for i in range(400)])


def test_data_set_in_the_layout_of_the_hub_is_tokenised_once(make_spec, hub: Path, monkeypatch):
    spec = make_spec(data_location={"Hub": {"repo_id": str(hub)}}).resolve()
    data = Dataset(spec, 160)
    text = b"".join(f"document {i} of the set. ".encode() * 3 for i in range(400))
    rows = {bytes(row) for row in data.batch([range(data.num_train)]).tolist()}
    assert rows < {text[at : at + 17] for at in range(0, len(text), 17)}
    limited = make_spec(data_location={"Hub": {"repo_id": str(hub), "max_tokens": 15_000}}).resolve()
    assert Dataset(limited, 160).num_train < data.num_train
    assert limited.data_location.chosen.manifest != spec.data_location.chosen.manifest
    with pytest.raises(DataError, match="gives manifest"):
        Dataset(make_spec(data_location={"Hub": {"repo_id": str(hub), "manifest": "ab" * 32}}), 160)
    with pytest.raises(DataError, match=r"split nosuch cannot be read"):
        make_spec(data_location={"Hub": {"repo_id": str(hub), "split": "nosuch"}}).resolve()


def test_data_set_saved_to_disk_is_prepared(hub: Path, tmp_path: Path):
    import datasets

    loaded = datasets.load_dataset(str(hub), split="train", cache_dir=str(tmp_path / "hf"))
    datasets.DatasetDict({"train": loaded}).save_to_disk(str(tmp_path / "disk"))
    for name in ("set", "disk"):
        assert (
            main(["prepare-data", str(tmp_path / name), "--dataset", "--out", str(tmp_path / f"out-{name}")])
            == 0
        )
    one, other = (open_local(tmp_path / f"out-{name}", None).manifest for name in ("set", "disk"))
    assert one == other
