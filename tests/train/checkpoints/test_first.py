"""How a run begins: every kind of source, pinned, and proved to be what the specification names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from psyche_train.checkpoints.errors import CheckpointError, DamagedError
from psyche_train.checkpoints.remote import publish
from psyche_train.local_run import RUN
from psyche_train.matformer.first import checkpoint_dir, config_sha256, first_weights, schema_of
from psyche_train.matformer.slice import cut_checkpoint
from psyche_train.spec import TrainSpec
from psyche_train.trainer import Trainer, TrainerError
from tests.train.checkpoints.conftest import save_llama


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A checkpoint by `transformers`, with the slices of tiers 1 and 2 in it."""
    folder = save_llama(tmp_path / "full")
    cut_checkpoint(folder, folder, [1, 2])
    return folder


def digests(spec: TrainSpec, folder: Path, tier: int, strategy: str = "auto") -> list[bytes]:
    member = Trainer(spec, tier=tier, run=RUN, state_dir=folder, device="cpu", strategy=strategy)  # type: ignore[arg-type]
    member.load()
    assert member.source.sliced == (tier > 0 and strategy != "universal")
    return member.digests()


def local(make_spec, path: Path, **changes: str) -> TrainSpec:
    return make_spec(checkpoint={"Local": {"path": str(path), **changes}})


def test_members_of_all_tiers_begin_with_nested_weights_by_every_strategy(make_spec, full, tmp_path):
    spec = local(make_spec, full).resolve()
    whole = digests(spec, tmp_path / "0", 0)
    for tier in (1, 2):
        for strategy in ("universal", "sliced", "auto"):
            assert digests(spec, tmp_path / f"{tier}{strategy}", tier, strategy) == whole[: 3 - tier]


def test_a_member_that_has_only_its_slice_begins_as_the_others_do(make_spec, full, tmp_path):
    spec = local(make_spec, full).resolve()
    wanted = digests(spec, tmp_path / "a", 1)
    (full / "model.safetensors").unlink()
    (full / "tier2").rename(tmp_path / "gone")
    assert digests(spec, tmp_path / "b", 1) == wanted
    with pytest.raises(CheckpointError):
        digests(spec, tmp_path / "c", 2)


def test_a_slice_of_other_weights_is_refused(make_spec, full, tmp_path):
    spec = local(make_spec, full).resolve()
    other = save_llama(tmp_path / "other", seed=9)
    cut_checkpoint(other, other, [1])
    (full / "tier1").rename(tmp_path / "right")
    (other / "tier1").rename(full / "tier1")
    schema = schema_of(spec, 1)
    with pytest.raises(CheckpointError, match="have hash"), first_weights(spec, schema, 1):
        pass
    manifest = json.loads((full / "tier1" / "manifest.json").read_text())
    manifest["outer_sha256"] = []
    (full / "tier1" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="without a proof"), first_weights(spec, schema, 1):
        pass
    with first_weights(spec, schema, 1, "universal") as first:
        assert not first.cut


@pytest.mark.parametrize("tier", [0, 1])
def test_one_changed_bit_anywhere_is_refused_at_every_tier(make_spec, full, tier):
    spec = local(make_spec, full).resolve()
    weights = load_file(full / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][63, 31] += 1e-3  # outside every slice
    save_file(weights, full / "model.safetensors", metadata={"format": "pt"})
    schema = schema_of(spec)
    with pytest.raises(CheckpointError, match="have hash"), first_weights(spec, schema, tier, "universal"):
        pass
    raw = bytearray((full / "tier1" / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (full / "tier1" / "model.safetensors").write_bytes(bytes(raw))
    with pytest.raises(DamagedError, match="not what the manifest says"), first_weights(spec, schema, 1):
        pass


@pytest.mark.parametrize(("key", "value"), [("rms_norm_eps", 1e-4), ("rope_parameters", {"rope_theta": 9.0})])
def test_a_configuration_that_computes_something_else_is_refused(make_spec, full, key, value):
    spec = local(make_spec, full).resolve()
    tables = json.loads((full / "config.json").read_text())
    (full / "config.json").write_text(json.dumps({**tables, "transformers_version": "9", "use_cache": True}))
    schema_of(spec)
    (full / "config.json").write_text(json.dumps({**tables, key: value}))
    with (
        pytest.raises(CheckpointError, match="another model than the run's"),
        first_weights(spec, schema_of(spec), 0),
    ):
        pass


def test_a_member_without_the_first_weights_goes_on_from_agreed_ones(make_spec, full, tmp_path):
    spec = local(make_spec, full).resolve()
    others = [
        Trainer(spec, tier=tier, run=RUN, state_dir=tmp_path / f"o{tier}", device="cpu") for tier in (0, 1)
    ]
    for other in others:
        other.load()
    agreed = others[0].save()
    full.rename(tmp_path / "gone")
    for tier, other in enumerate(others):
        member = Trainer(spec, tier=tier, run=RUN, state_dir=tmp_path / f"m{tier}", device="cpu")
        with pytest.raises(CheckpointError, match="not a directory"):
            member.load()
        member.load(agreed=True)
        assert "from members" in member.source.checkpoint
        with pytest.raises(TrainerError, match="no weights yet"):
            member.digests()
        member.restore(agreed, other.position)
        assert member.digests() == other.digests()
        member.save()
        again = Trainer(spec, tier=tier, run=RUN, state_dir=tmp_path / f"m{tier}", device="cpu")
        again.load()
        assert again.digests() == other.digests()


def test_the_model_is_in_the_specification_unless_it_is_long(make_spec, full):
    spec = local(make_spec, full).resolve()
    assert spec.checkpoint.chosen.config["hidden_size"] == 32
    assert TrainSpec.from_bytes(spec.to_bytes()) == spec
    config = {**spec.checkpoint.chosen.config, "hidden_size": 64}
    with pytest.raises(CheckpointError, match="another model than the run's"):
        schema_of(make_spec(checkpoint={"Local": {**spec.checkpoint.chosen.model_dump(), "config": config}}))
    tables = json.loads((full / "config.json").read_text())
    labels = {str(i): "label" * 10 for i in range(200)}
    (full / "config.json").write_text(json.dumps({**tables, "id2label": labels}))
    spec = local(make_spec, full).resolve()
    assert spec.checkpoint.chosen.config is None
    schema_of(spec)


@pytest.mark.parametrize("table", [{"P2P": {"repo_id": "org/model"}}, "Ephemeral", {"P2PGcs": {}}])
def test_a_run_from_peers_only_is_refused_with_what_to_do(make_spec, table):
    with pytest.raises(ValueError, match=r"cannot start from peers only.*Choose Init, Hub, Local or Url"):
        make_spec(checkpoint=table)


def test_the_configuration_of_a_slice_has_the_hash_of_the_full_one(full):
    tables = [json.loads((full / name / "config.json").read_text()) for name in (".", "tier1", "tier2")]
    assert len({config_sha256(table) for table in tables}) == 1


def test_the_hub_is_pinned_by_commit_and_a_tier_fetches_only_its_slice(make_spec, full, standin, tmp_path):
    publish(full, "hub:org/model")
    spec = make_spec(checkpoint={"Hub": {"repo_id": "org/model", "revision": "main"}}).resolve()
    chosen = spec.checkpoint.chosen
    assert chosen.revision == standin.repos["org/model"].branches["main"]
    publish(save_llama(tmp_path / "newer", seed=3), "hub:org/model")
    wanted = digests(local(make_spec, full).resolve(), tmp_path / "a", 1)
    standin.requests.clear()
    checkpoint_dir.__globals__["_fetched"].cache_clear()
    assert digests(spec, tmp_path / "b", 1) == wanted
    fetched = [line for line in standin.requests if line.startswith("GET /org/model/resolve")]
    assert not [line for line in fetched if line.endswith("/model.safetensors") and "tier1" not in line]
    assert TrainSpec.from_bytes(spec.to_bytes()) == spec


def test_a_url_is_fetched_once_and_verified(make_spec, full, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"file://{tmp_path}/bucket/model"
    publish(full, url)
    spec = make_spec(checkpoint={"Url": {"url": url}}).resolve()
    assert (
        spec.checkpoint.chosen.weights_sha256
        == local(make_spec, full).resolve().checkpoint.chosen.weights_sha256
    )
    assert digests(spec, tmp_path / "b", 0) == digests(local(make_spec, full), tmp_path / "c", 0)


def test_the_originals_gcs_table_is_read_as_a_url(make_spec):
    spec = make_spec(checkpoint={"Gcs": {"bucket": "models", "prefix": "demo/v1/"}})
    assert spec.checkpoint.chosen.url == "gs://models/demo/v1"
    assert TrainSpec.from_bytes(spec.to_bytes()) == spec
    assert make_spec(checkpoint={"Gcs": {"bucket": "models"}}).checkpoint.chosen.url == "gs://models"
    for wrong in ({"bucket": "x", "other": 1}, "x", {"bucket": "a b"}):
        with pytest.raises(ValueError, match=r"Gcs has the keys|pattern"):
            make_spec(checkpoint={"Gcs": wrong})


def test_a_run_does_not_begin_with_a_slice(make_spec, full):
    with pytest.raises(CheckpointError, match="this one is a slice"):
        local(make_spec, full / "tier1").resolve()


def test_weights_that_are_no_fp32_begin_as_fp32(make_spec, full, tmp_path):
    weights = load_file(full / "model.safetensors")
    save_file(
        {name: values.to(torch.bfloat16) for name, values in weights.items()}, full / "model.safetensors"
    )
    spec = local(make_spec, full).resolve()
    assert digests(spec, tmp_path / "a", 0)[:2] == digests(spec, tmp_path / "b", 1, "universal")
