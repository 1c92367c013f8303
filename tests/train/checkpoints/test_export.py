"""`psyche-train export`: an ordinary Hugging Face model with the training model's logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from psyche_train.checkpoints.errors import CheckpointError
from psyche_train.checkpoints.locate import checkpoint_at
from psyche_train.cli.main import main
from psyche_train.local_run import LocalRun
from psyche_train.matformer.export import export_model
from psyche_train.matformer.loading import inferred, read_family
from psyche_train.matformer.slice import cut_checkpoint
from psyche_train.matformer.stored import read_slice
from psyche_train.models.schema import Schema, TierError
from tests.train.checkpoints.conftest import save_llama
from tests.train.test_models import CONFIGS

TOKENS = torch.arange(40).reshape(2, 20) * 5 % 256


def training_logits(checkpoint: Path, tier: int, rescale: float = 1.0) -> torch.Tensor:
    """Logits of the model that a member of the tier trains."""
    family = read_family(checkpoint)
    schema = Schema.of(family, 2)
    weights = read_slice(inferred(checkpoint, schema), schema, tier)
    model = family.build(
        family.ffn_width >> tier, weights, torch.device("cpu"), factor=2.0 ** (tier * rescale)
    )
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS).logits


def exported_logits(folder: Path) -> torch.Tensor:
    """Logits of the exported model as anybody would open it."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS).logits.float()


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("tier", [0, 1, 2])
def test_logits_are_the_training_models_bit_for_bit(tmp_path, tier, tied):
    full = save_llama(tmp_path / "full", tied=tied)
    done = export_model(full, tmp_path / "export", tier=tier, shard_bytes=20_000)
    assert (done.factor, done.exact, done.tokenizer) == (2.0**tier, True, True)
    assert len(list(done.path.glob("model-*.safetensors"))) > 1
    assert torch.equal(exported_logits(done.path), training_logits(full, tier))
    config = json.loads((done.path / "config.json").read_text())
    assert config["intermediate_size"] == 64 >> tier
    assert config["matformer_export"]["tier"] == tier
    assert not {"matformer_tier", "matformer_base_intermediate_size", "use_cache"} & set(config)
    tokenizer = AutoTokenizer.from_pretrained(done.path)
    assert tokenizer("ab")["input_ids"] == [97, 98]


def test_an_export_of_a_slice_is_the_export_of_that_tier(tmp_path):
    full = save_llama(tmp_path / "full")
    cut_checkpoint(full, tmp_path / "out", [1])
    export_model(full, tmp_path / "one", tier=1)
    export_model(tmp_path / "out" / "tier1", tmp_path / "two")
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(("dtype", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_smaller_types_are_rounded_once_and_say_so(tmp_path, dtype, kind):
    full = save_llama(tmp_path / "full")
    done = export_model(full, tmp_path / "export", tier=1, dtype=dtype)
    assert not done.exact
    model = AutoModelForCausalLM.from_pretrained(done.path)
    assert model.dtype is kind
    schema = Schema.of(read_family(full), 1)
    weights = read_slice(inferred(full, schema), schema, 1)
    for name, values in weights.items():
        factor = 2.0 if name.endswith("down_proj.weight") else 1.0
        assert torch.equal(model.get_parameter(name), (values * factor).to(kind))


def test_a_value_that_does_not_fit_is_named(tmp_path):
    full = save_llama(tmp_path / "full")
    weights = load_file(full / "model.safetensors")
    weights["model.norm.weight"][0] = 1e5
    save_file(weights, full / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"norm.weight holds values that fp16 cannot: export as bf16"):
        export_model(full, tmp_path / "export", tier=2, dtype="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_exports_come_from_a_members_state_directory_after_training(spec, tmp_path):
    run = LocalRun(spec, (0, 1), tmp_path / "run", samples=8)
    list(run.train(2))
    run.drain()
    for i, member in enumerate(run.members):
        member.save()
        assert main(["export", str(tmp_path / "run" / str(i)), str(tmp_path / f"export{i}")]) == 0
        model = AutoModelForCausalLM.from_pretrained(tmp_path / f"export{i}").eval()
        tokens = TOKENS[:, :16] % 160
        with torch.no_grad():
            logits = model(input_ids=tokens).logits
            training = member.held.loaded().learner.model.eval()(input_ids=tokens).logits
        assert torch.equal(logits, training)
    assert main(["export", str(tmp_path / "run" / "0"), str(tmp_path / "export2"), "--tier", "1"]) == 0
    one, two = (exported_weights(tmp_path / f"export{i}") for i in (1, 2))
    assert one == two


@pytest.mark.parametrize("name", [".", "members/0", "members/0/checkpoints"])
def test_what_training_here_left_is_a_checkpoint_for_every_command(spec, tmp_path, name):
    """The page of commands says so of all of them, and not only `generate` and `eval` have to take it."""
    run = LocalRun(spec, (0, 1), tmp_path / "out" / "members", samples=8)
    list(run.train(1))
    run.drain()
    saved = [member.save() for member in run.members]
    source = tmp_path / "out" / name
    assert checkpoint_at(source) == saved[0]
    assert main(["export", str(source), str(tmp_path / "small"), "--tier", "1"]) == 0
    assert main(["slice", str(source), "--tiers", "1", "--out", str(tmp_path / "cut")]) == 0
    assert main(["upload", str(source), f"file://{tmp_path / 'up'}"]) == 0
    assert main(["download", str(source), str(tmp_path / "down")]) == 0


def exported_weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_an_export_is_refused_for_training_and_for_another_export(spec, make_spec, tmp_path):
    full = save_llama(tmp_path / "full")
    export_model(full, tmp_path / "export")
    with pytest.raises(CheckpointError, match="not for training"):
        make_spec(checkpoint={"Local": {"path": str(tmp_path / "export")}}).resolve()
    with pytest.raises(CheckpointError, match="is an export"):
        export_model(tmp_path / "export", tmp_path / "again")


def test_refusals_of_the_command_are_sentences_and_leave_nothing(tmp_path, capsys):
    full = save_llama(tmp_path / "full", ffn=36)
    (tmp_path / "there").mkdir()
    assert main(["export", str(full), str(tmp_path / "there")]) == 3
    assert "is there already" in capsys.readouterr().err
    assert main(["export", str(full), str(tmp_path / "x"), "--tier", "3"]) == 3
    assert "tier 3" in capsys.readouterr().err
    assert main(["export", str(full), str(tmp_path / "x"), "--dtype", "int8"]) == 2
    assert main(["export", str(tmp_path / "nothing"), str(tmp_path / "x")]) == 3
    assert not (tmp_path / "x").exists()
    cut_checkpoint(full, tmp_path / "out", [2])
    with pytest.raises(TierError):
        export_model(tmp_path / "out" / "tier2", tmp_path / "x", tier=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "out", "there"]


def test_the_exported_model_generates(tmp_path):
    full = save_llama(tmp_path / "full")
    export_model(full, tmp_path / "export", tier=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    written = model.generate(TOKENS[:1, :5], max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert written.shape == (1, 9)


@pytest.mark.parametrize("kind", ["qwen3_moe", "deepseek_v3"])
def test_experts_open_again_with_the_same_logits_exported_and_sliced(tmp_path, kind):
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **CONFIGS[kind])
    full = tmp_path / "full"
    AutoModelForCausalLM.from_config(config).save_pretrained(full)
    tokens = TOKENS % CONFIGS[kind]["vocab_size"]
    cut_checkpoint(full, full, [1])
    for tier, source in ((0, full), (1, full), (1, full / "tier1")):
        done = export_model(source, tmp_path / f"export{tier}{source.name}", tier=tier)
        model = AutoModelForCausalLM.from_pretrained(done.path, dtype=torch.float32).eval()
        schema = Schema.of(family := read_family(source), 1)
        weights = read_slice(inferred(source, schema), schema, tier)
        own = family.build(family.ffn_width >> tier, weights, torch.device("cpu"), factor=2.0**tier).eval()
        with torch.no_grad():
            wanted, found = own(input_ids=tokens).logits, model(input_ids=tokens).logits
        assert torch.equal(found, wanted)
        assert found.std() > 1e-3
    sliced = AutoModelForCausalLM.from_pretrained(full / "tier1", dtype=torch.float32)
    assert set(sliced.state_dict()) == set(AutoModelForCausalLM.from_config(config).state_dict())
    assert sliced.config.moe_intermediate_size == CONFIGS[kind]["moe_intermediate_size"] // 2
