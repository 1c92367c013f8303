"""`psyche-train slice`: prefixes bit for bit, one tensor in memory, resumable, and no slice of a slice."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from psyche_train.checkpoints.errors import CheckpointError, DamagedError, DoubleSliceError
from psyche_train.checkpoints.files import WeightFiles
from psyche_train.checkpoints.manifest import FileEntry, read_manifest
from psyche_train.checkpoints.tensors import TensorFile
from psyche_train.cli.main import main
from psyche_train.matformer import loading
from psyche_train.matformer import slice as slicing
from psyche_train.matformer.export import export_model
from psyche_train.matformer.loading import find_source, inferred, read_family
from psyche_train.matformer.slice import TOP_MANIFEST, cut_checkpoint
from psyche_train.matformer.stored import full_weights_hash, read_slice
from psyche_train.models.family import ModelError
from psyche_train.models.schema import Schema, TierError
from tests.train.checkpoints.conftest import save_llama


def schema_of(path: Path, max_tier: int = 2) -> Schema:
    return Schema.of(read_family(path), max_tier)


def all_tensors(path: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in path.glob("model*.safetensors"):
        found |= load_file(file)
    return found


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_slices_are_the_prefixes_bit_for_bit(tmp_path, tied, sharded):
    limit = 20_000 if sharded else 10**9
    full = save_llama(tmp_path / "full", tied=tied, shard_bytes=limit)
    slices = cut_checkpoint(full, tmp_path / "out", [2, 1, 1], shard_bytes=limit)
    assert [(part.tier, part.width, part.was_there) for part in slices] == [(1, 32, False), (2, 16, False)]
    whole = all_tensors(full)
    for part in slices:
        assert (len(list(part.path.glob("model*.safetensors"))) > 1) == sharded
        cut = all_tensors(part.path)
        assert sum(values.numel() for values in cut.values()) == part.parameters
        assert ("lm_head.weight" in cut) != tied
        for name, values in cut.items():
            index = tuple(slice(0, size) for size in values.shape)
            assert torch.equal(values, whole[name][index])
            assert (values.shape != whole[name].shape) == (".mlp." in name)
        config, original = (json.loads((p / "config.json").read_text()) for p in (part.path, full))
        changed = {key for key in config if config.get(key) != original.get(key)}
        assert changed == {"intermediate_size", "matformer_tier", "matformer_base_intermediate_size"}
        assert (config["matformer_tier"], config["matformer_base_intermediate_size"]) == (part.tier, 64)
        manifest = read_manifest(part.path)
        assert manifest is not None
        manifest.verify(part.path)
        assert set(manifest.files) == {path.name for path in part.path.iterdir()} - {"manifest.json"}
        assert "tokenizer.json" in manifest.files


def test_the_top_manifest_lists_every_file_of_every_tier_with_its_hash(tmp_path):
    full = save_llama(tmp_path / "full")
    cut_checkpoint(full, full, [1])
    cut_checkpoint(full, full, [2])
    top = json.loads((full / TOP_MANIFEST).read_text())
    assert set(top["tiers"]) == {"0", "1", "2"}
    assert top["intermediate_sizes"] == {"0": 64, "1": 32, "2": 16}
    assert (
        top["schema_sha256"]
        == schema_of(full, 0).model_sha256().hex()
        == schema_of(full / "tier2").model_sha256().hex()
    )
    assert sorted(top["files"]) == sorted(name for names in top["tiers"].values() for name in names)
    for name, described in top["files"].items():
        assert FileEntry.of_file(full / name) == FileEntry(described["bytes"], described["sha256"])
    on_disk = {str(p.relative_to(full)) for p in full.rglob("*.safetensors")}
    assert on_disk == {name for name in top["files"] if name.endswith(".safetensors")}


def test_a_slice_proves_what_it_was_cut_from_and_lies_show(tmp_path):
    full = save_llama(tmp_path / "full")
    cut_checkpoint(full, tmp_path / "out", [1, 2])
    for max_tier in (2, 3):
        schema = schema_of(full, max_tier)
        wanted = full_weights_hash(inferred(full, schema), schema)
        for tier in (1, 2):
            source = inferred(tmp_path / "out" / f"tier{tier}", schema)
            assert full_weights_hash(source, schema) == wanted
    path = tmp_path / "out" / "tier2" / "manifest.json"
    tables = json.loads(path.read_text())
    tables["outer_sha256"][0] = "00" * 32
    path.write_text(json.dumps(tables))
    assert full_weights_hash(inferred(tmp_path / "out" / "tier2", schema), schema) != wanted


def test_cutting_again_changes_nothing_and_anything_else_in_the_place_is_refused(tmp_path):
    full = save_llama(tmp_path / "full")
    out = tmp_path / "out"
    cut_checkpoint(full, out, [1])
    before = {p: p.stat().st_mtime_ns for p in (out / "tier1").iterdir()}
    assert [part.was_there for part in cut_checkpoint(full, out, [1, 2])] == [True, False]
    assert {p: p.stat().st_mtime_ns for p in (out / "tier1").iterdir()} == before
    other = save_llama(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match="not this slice"):
        cut_checkpoint(other, out, [1])
    weights = out / "tier1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(CheckpointError, match="not this slice"):
        cut_checkpoint(full, out, [1])
    shutil.rmtree(out / "tier1")
    (out / "tier1").mkdir()
    (out / "tier1" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not this slice"):
        cut_checkpoint(full, out, [1])
    assert (out / "tier1" / "notes.txt").read_text() == "mine"


def test_an_interrupted_cut_goes_on_after_the_last_whole_file(tmp_path, monkeypatch):
    full = save_llama(tmp_path / "full")
    written: list[str] = []
    stop_after = [3]
    original = slicing.write_weights

    def interrupted(folder, entries, fetch, *, finished, **options):
        def told(name, entry):
            finished(name, entry)
            written.append(name)
            if len(written) == stop_after[0]:
                raise KeyboardInterrupt

        return original(folder, entries, fetch, finished=told, **options)

    monkeypatch.setattr(slicing, "write_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut_checkpoint(full, tmp_path / "out", [1], shard_bytes=8000)
    assert not (tmp_path / "out" / "tier1").exists()
    stop_after[0] = 0
    cut_checkpoint(full, tmp_path / "out", [1], shard_bytes=8000)
    assert len(written) == len(set(written)) == len(list((tmp_path / "out" / "tier1").glob("model-*")))
    cut_checkpoint(full, tmp_path / "whole", [1], shard_bytes=8000)
    for path in (tmp_path / "whole" / "tier1").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / "tier1" / path.name).read_bytes()
    assert not list((tmp_path / "out").glob(".new-*"))


def test_a_torn_file_of_an_interrupted_cut_is_written_again(tmp_path, monkeypatch):
    full = save_llama(tmp_path / "full")
    monkeypatch.setattr(slicing, "copy_tokenizer", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cut_checkpoint(full, tmp_path / "out", [1], shard_bytes=8000)
    monkeypatch.undo()
    (torn, *_) = sorted((tmp_path / "out" / ".new-tier1").glob("model-*"))
    torn.write_bytes(torn.read_bytes()[:-4])
    cut_checkpoint(full, tmp_path / "out", [1], shard_bytes=8000)
    schema = schema_of(full)
    assert full_weights_hash(inferred(tmp_path / "out" / "tier1", schema), schema) == full_weights_hash(
        inferred(full, schema), schema
    )


def test_what_cannot_be_cut_is_refused_by_name(tmp_path):
    full = save_llama(tmp_path / "full", ffn=36)
    with pytest.raises(TierError, match=r"tier 3 needs a feed-forward width that divides by 8, .* 36"):
        cut_checkpoint(full, tmp_path / "out", [1, 3])
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="tier 0 is the checkpoint itself"):
        cut_checkpoint(full, tmp_path / "out", [0])
    cut_checkpoint(full, tmp_path / "out", [1])
    with pytest.raises(DoubleSliceError, match="already the slice of tier 1"):
        cut_checkpoint(tmp_path / "out" / "tier1", tmp_path / "again", [2])
    export_model(full, tmp_path / "export", tier=1)
    with pytest.raises(CheckpointError, match="export"):
        cut_checkpoint(tmp_path / "export", tmp_path / "again", [1])
    config = json.loads((full / "config.json").read_text())
    (full / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    with pytest.raises(CheckpointError, match="tier 0 has"):
        cut_checkpoint(full, tmp_path / "again", [1])


def test_a_damaged_source_is_found_before_anything_is_written(tmp_path):
    full = save_llama(tmp_path / "full")
    whole = load_file(full / "model.safetensors")
    whole["model.norm.weight"][3] = float("nan")
    save_file(whole, full / "model.safetensors")
    with pytest.raises(DamagedError, match="NaN"):
        cut_checkpoint(full, tmp_path / "out", [1])
    assert not (tmp_path / "out" / "tier1").exists()


def test_one_tensor_is_in_memory_at_a_time(tmp_path, monkeypatch):
    full = save_llama(tmp_path / "full")
    largest = max(values.nbytes for values in load_file(full / "model.safetensors").values())
    alive: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
    original, peak = TensorFile._rows, [0]

    def rows(self, name, first, stop):
        values = original(self, name, first, stop)
        alive.add(values.untyped_storage())
        held = sum(storage.nbytes() for storage in alive)
        if held > 2 * largest:
            gc.collect()  # what only waits for the collector is not held
            held = sum(storage.nbytes() for storage in alive)
        peak[0] = max(peak[0], held)
        return values

    monkeypatch.setattr(TensorFile, "_rows", rows)
    cut_checkpoint(full, tmp_path / "out", [1, 2])
    export_model(full, tmp_path / "export", tier=1)
    assert 0 < peak[0] <= 2 * largest


def test_the_command_cuts_says_what_it_did_and_refuses_in_sentences(tmp_path, capsys):
    full = save_llama(tmp_path / "full")
    assert main(["slice", str(full), "--tiers", "1", "--out", str(tmp_path / "out"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [part["width"] for part in shown["slices"]] == [32]
    assert main(["slice", str(tmp_path / "out" / "tier1"), "--tiers", "2"]) == 3
    assert "already the slice of tier 1" in capsys.readouterr().err
    assert main(["slice", str(full), "--tiers", "0"]) == 2
    assert main(["slice", str(tmp_path / "nothing")]) == 3
    assert "does not exist" in capsys.readouterr().err
    assert main(["slice", str(full), "--tiers", "7"]) == 3
    assert "tier 7" in capsys.readouterr().err


# which file a member loads from


@pytest.mark.parametrize("beside", [False, True], ids=["inside the checkpoint", "beside it"])
def test_every_strategy_takes_what_its_table_says(tmp_path, beside):
    full = save_llama(tmp_path / "full")
    schema = schema_of(full)
    with pytest.raises(CheckpointError, match="psyche-train slice"):
        find_source(full, schema, 1, "sliced")
    assert find_source(full, schema, 1, "auto").path == full
    cut_checkpoint(full, full, [1])
    cut = full / "tier1"
    if beside:
        cut = cut.rename(tmp_path / "full-tier1")
    wanted = {("universal", 1): full, ("auto", 1): cut, ("sliced", 1): cut}
    wanted |= {(strategy, 0): full for strategy in ("universal", "auto", "sliced")}
    wanted |= {("universal", 2): full, ("auto", 2): full}
    for (strategy, tier), path in wanted.items():
        source = find_source(full, schema, tier, strategy)
        assert source.path == path
        values = read_slice(source, schema, tier)
        assert torch.equal(
            values["model.layers.0.mlp.down_proj.weight"],
            all_tensors(full)["model.layers.0.mlp.down_proj.weight"][:, : 64 >> tier],
        )
    with pytest.raises(CheckpointError, match="psyche-train slice"):
        find_source(full, schema, 2, "sliced")


def test_a_slice_serves_its_own_tier_only(tmp_path):
    full = save_llama(tmp_path / "full")
    schema = schema_of(full)
    cut_checkpoint(full, tmp_path / "out", [1])
    half = tmp_path / "out" / "tier1"
    assert find_source(half, schema, 1, "auto").tier == find_source(half, schema, 1, "sliced").tier == 1
    for tier in (1, 2):
        with pytest.raises(DoubleSliceError, match="cuts full checkpoints only"):
            find_source(half, schema, tier, "universal")
    with pytest.raises(DoubleSliceError, match="cutting it again to tier 2"):
        find_source(half, schema, 2, "auto")
    with pytest.raises(CheckpointError):
        find_source(half, schema, 2, "sliced")
    with pytest.raises(TierError, match="needs more neurons"):
        find_source(half, schema, 0, "auto")


def test_a_directory_whose_name_lies_about_its_tier_is_refused(tmp_path):
    full = save_llama(tmp_path / "full")
    cut_checkpoint(full, tmp_path / "out", [2])
    (tmp_path / "out" / "tier2").rename(full / "tier1")
    with pytest.raises(CheckpointError, match="holds tier 2, its name says tier 1"):
        find_source(full, schema_of(full), 1, "auto")


def test_the_tier_is_inferred_from_the_metadata_else_from_a_power_of_two(tmp_path):
    full = save_llama(tmp_path / "full", ffn=48)
    schema = schema_of(full)
    for tier in (1, 2, 3):
        cut_checkpoint(full, tmp_path / "out", [tier])
        folder = tmp_path / "out" / f"tier{tier}"
        assert inferred(folder, schema).tier == tier
        (folder / "manifest.json").unlink()
        config = json.loads((folder / "config.json").read_text())
        without = {key: value for key, value in config.items() if not key.startswith("matformer")}
        (folder / "config.json").write_text(json.dumps(without))
        assert inferred(folder, schema).tier == tier
        assert inferred(folder / "model.safetensors", schema).tier == tier
        for wrong in (without | {"intermediate_size": 30}, config | {"matformer_tier": tier + 1}):
            (folder / "config.json").write_text(json.dumps(wrong))
            with pytest.raises(CheckpointError):
                inferred(folder, schema)


def test_another_model_of_the_same_width_is_told_by_its_schema_hash(tmp_path):
    full, other = save_llama(tmp_path / "full"), save_llama(tmp_path / "other", tied=True)
    cut_checkpoint(other, other, [1])
    with pytest.raises(CheckpointError, match="another model"):
        inferred(other / "tier1", schema_of(full))
    assert loading.slice_directories(other, 1) == (other / "tier1", tmp_path / "other-tier1")


def test_weights_of_many_types_become_fp32(tmp_path):
    full = save_llama(tmp_path / "full")
    whole = load_file(full / "model.safetensors")
    save_file({name: values.bfloat16() for name, values in whole.items()}, full / "model.safetensors")
    schema = schema_of(full)
    values = read_slice(inferred(full, schema), schema, 1)
    assert all(value.dtype == torch.float32 for value in values.values())
    with WeightFiles(full) as files:
        assert torch.equal(values["model.norm.weight"], files.read("model.norm.weight"))


numbers = st.integers(-2, 70) | st.sampled_from([2**31, 2**63, 10**30, 0.5, True, None, "64", [], {}])
KEYS = ["intermediate_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "vocab_size", "matformer_tier", "matformer_base_intermediate_size", "model_type", "rope_parameters",
        "rms_norm_eps", "head_dim", "torch_dtype", "tie_word_embeddings", "pad_token_id"]  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), numbers, min_size=1, max_size=4))
def test_any_configuration_is_a_model_or_a_named_error(tmp_path, changes):
    full = tmp_path / "full"
    if not full.exists():
        save_llama(full)
    config = json.loads((full / "config.json").read_text())
    (tmp_path / "changed").mkdir(exist_ok=True)
    (tmp_path / "changed" / "config.json").write_text(json.dumps({**config, **changes}))
    try:
        schema = schema_of(tmp_path / "changed")
        inferred(tmp_path / "changed", schema)
    except (CheckpointError, TierError, ModelError):
        pass


def test_a_configuration_of_a_million_layers_is_not_built(tmp_path):
    full = save_llama(tmp_path / "full")
    config = json.loads((full / "config.json").read_text())
    (full / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 10**6}))
    with pytest.raises(CheckpointError, match="num_hidden_layers"):
        read_family(full)
