"""Model families: every architecture's slices, first weights, checkpoints and training."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

from psyche_train.fold.digest import part_digests
from psyche_train.local_run import RUN, LocalRun
from psyche_train.matformer.loading import CheckpointError, inferred, read_family
from psyche_train.matformer.stored import read_slice
from psyche_train.models.family import ModelError
from psyche_train.models.hf import HfAuto
from psyche_train.models.initial import initial_weights
from psyche_train.models.nanogpt import NanoGPT
from psyche_train.models.registry import family_of
from psyche_train.models.schema import Schema, TierError
from psyche_train.resolve import schema_of
from psyche_train.spec import SpecError, TrainSpec
from psyche_train.trainer import Position, Trainer
from tests.train.conftest import tables

CPU = torch.device("cpu")
SIZES = {
    "vocab_size": 160,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
CONFIGS = {
    "llama": {**SIZES, "mlp_bias": True},
    "qwen2": {**SIZES, "tie_word_embeddings": True},
    "qwen3": {**SIZES, "head_dim": 8, "tie_word_embeddings": True},
    "mistral": SIZES,
    "phi3": SIZES,
    "qwen3_moe": {**SIZES, **EXPERTS, "head_dim": 8, "num_experts": 4},
    "deepseek_v3": {
        **SIZES,
        **EXPERTS,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "n_shared_experts": 2,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
    "gpt2": {
        **{"vocab_size": 160, "n_embd": 32, "n_layer": 2, "n_head": 4},
        **{"bos_token_id": None, "eos_token_id": None},
    },
    "gpt_neox": {key: value for key, value in SIZES.items() if key != "num_key_value_heads"},
    "psyche_nanogpt": {
        **{key: SIZES[key] for key in ("vocab_size", "hidden_size", "intermediate_size")},
        **{"num_hidden_layers": 3, "num_attention_heads": 4, "zero_init": False},
    },
}
WHOLE = {"bloom": {"vocab_size": 160, "hidden_size": 32, "n_layer": 2, "n_head": 4}}


def family(kind: str, **changes) -> HfAuto:
    config = {"model_type": kind, **{**CONFIGS, **WHOLE}[kind], **changes}
    return (NanoGPT if kind == "psyche_nanogpt" else HfAuto).fresh(config, 32)


def spec_of(kind: str, **changes) -> TrainSpec:
    architecture = "NanoGPT" if kind == "psyche_nanogpt" else "HfAuto"
    config = {"model_type": kind, **{**CONFIGS, **WHOLE}[kind]}
    changes = {"checkpoint": {"Init": {"seed": 3, "config": config}}, **changes}
    return TrainSpec.model_validate({**tables(**changes), "architecture": architecture})


def weights_of(model: HfAuto, tier: int = 0) -> dict[str, torch.Tensor]:
    return initial_weights(Schema.of(model, tier), 5, tier)


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    tokens = torch.arange(32).reshape(2, 16) * 7 % 160
    return model(input_ids=tokens, use_cache=False).logits


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("transformers").setLevel(logging.ERROR)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_slice_is_the_model_of_smaller_width_with_the_factor_in_its_down_projections(kind):
    """The reference is put together here by hand, from transformers' own classes and names."""
    model = family(kind)
    full = weights_of(model)
    tables_ = {**model.tables}
    for key in ("intermediate_size", "moe_intermediate_size", "n_inner"):
        if key in tables_:
            tables_[key] = (tables_[key] or 4 * tables_["n_embd"]) // 4
    config = CONFIG_MAPPING[kind](**tables_)
    reference = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    state = {}
    for name, small in reference.state_dict().items():
        if name not in full:
            continue  # the other name of a tied tensor
        values = full[name]
        if "gate_up_proj" in name:  # gate above up
            axis = values.dim() - 2
            values = torch.cat(
                [half.narrow(axis, 0, half.shape[axis] // 4) for half in values.chunk(2, axis)], axis
            )
        for axis, size in enumerate(small.shape):
            values = values.narrow(axis, 0, size)
        is_down = any(part in name for part in ("down_proj", "mlp.c_proj.weight", "dense_4h_to_h.weight"))
        state[name] = values * 4.0 if is_down and not name.endswith("bias") else values
    assert set(full) <= set(state)
    reference.load_state_dict(state, strict=False)
    reference.tie_weights()
    built = model.build(model.ffn_width // 4, weights_of(model, 2), CPU, factor=4.0)
    assert torch.allclose(logits(built), logits(reference), atol=2e-6, rtol=1e-5)
    plain = model.build(model.ffn_width // 4, weights_of(model, 2), CPU)
    assert not torch.allclose(logits(plain), logits(reference), atol=1e-4)
    assert {name for name in state if model.takes_factor(spec_named(model, name))} == {
        name
        for name in state
        if not torch.equal(state[name], reference_values(full, name, state[name].shape))
    }


def spec_named(model: HfAuto, name: str):
    return next(tensor for tensor in (*model.tensors(), *model.constants()) if tensor.name == name)


def reference_values(full, name, shape):
    values = full[name]
    if "gate_up_proj" in name:
        axis = values.dim() - 2
        half = shape[axis] // 2
        return torch.cat([part.narrow(axis, 0, half) for part in values.chunk(2, axis)], axis)
    for axis, size in enumerate(shape):
        values = values.narrow(axis, 0, size)
    return values


@pytest.mark.parametrize("kind", CONFIGS)
def test_parameters_are_in_name_order_and_tied_ones_there_once(kind):
    model = family(kind)
    names = [tensor.name for tensor in model.tensors()]
    assert names == sorted(names, key=str.encode)
    tied = bool(model.tables.get("tie_word_embeddings"))
    assert ("lm_head.weight" in names or "embed_out.weight" in names) != tied
    assert all(tensor.cut_axis is None or tensor.shape_at(2) != tensor.shape for tensor in model.tensors())
    assert any(tensor.cut_axis is not None for tensor in model.tensors())


@pytest.mark.parametrize("kind", CONFIGS)
def test_checkpoint_of_transformers_gives_the_same_weights_and_logits(kind, tmp_path):
    model = family(kind)
    weights = weights_of(model)
    for constant in model.constants():
        weights[constant.name] = torch.rand(constant.shape)
    built = model.build(model.ffn_width, weights, CPU)
    built.save_pretrained(tmp_path)  # experts come apart, one tensor each
    again = read_family(tmp_path)
    schema = Schema.of(again, 1)
    assert [tensor.name for tensor in schema.stored] == list(weights)
    read = read_slice(inferred(tmp_path, schema), schema, 0)
    assert all(torch.equal(read[name], values) for name, values in weights.items())
    half = read_slice(inferred(tmp_path, schema), schema, 1)
    assert all(torch.equal(half[t.name], t.take(weights[t.name], 1)) for t in schema.stored)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.allclose(logits(opened), logits(built), atol=1e-6)


def test_half_precision_checkpoint_is_read_as_fp32(tmp_path):
    config = CONFIG_MAPPING["qwen2"](**CONFIGS["qwen2"])
    MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).to(torch.bfloat16).save_pretrained(tmp_path)
    model = read_family(tmp_path)
    schema = Schema.of(model, 1)
    weights = read_slice(inferred(tmp_path, schema), schema, 1)
    assert {values.dtype for values in weights.values()} == {torch.float32}
    assert model.tables_of_tier(1, 1.0)["dtype"] == "float32"
    assert {p.dtype for p in model.build(32, weights, CPU).parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", ["qwen3", "phi3", "deepseek_v3", "gpt2", "psyche_nanogpt"])
def test_members_of_all_tiers_learn_and_hold_the_same_bits(kind, tmp_path):
    spec = spec_of(kind)
    run = LocalRun(spec, (0, 1, 2), tmp_path, samples=24)
    before = [member.validation_loss() for member in run.members]
    payloads = [min(progress.payload_bytes) for progress in run.train(12)]
    run.drain()
    after = [member.validation_loss() for member in run.members]
    assert min(payloads) > 300
    assert all(low < high - 0.1 for low, high in zip(after, before, strict=True))
    digests = [member.digests() for member in run.members]
    assert digests[2] == digests[1][:1] == digests[0][:1]
    assert digests[1] == digests[0][:2]
    half = run.members[1]
    path = half.save()
    assert read_family(path).widths == half.schema.family.widths
    again = Trainer(spec, tier=1, run=RUN, state_dir=tmp_path / "1", device="cpu")
    again.load()
    assert again.weights_hash() == half.weights_hash()
    full = run.members[0].save()
    quarter = Trainer(spec, tier=2, run=RUN, state_dir=tmp_path / "new", device="cpu")
    quarter.restore(full, Position(step=12))
    assert quarter.weights_hash() == run.members[2].weights_hash()
    opened = AutoModelForCausalLM.from_pretrained(full)
    assert torch.allclose(logits(opened), logits(run.members[0].held.loaded().learner.model), atol=1e-5)


def test_router_bias_is_kept_hashed_and_never_trained(tmp_path):
    model = family("deepseek_v3")
    (constant,) = model.constants()
    assert constant.name.endswith("e_score_correction_bias")
    assert constant.name not in {tensor.name for tensor in model.tensors()}
    weights = weights_of(model)
    weights[constant.name] = torch.tensor([0.5, -0.25, 0.0, 0.125])
    model.build(64, weights, CPU).save_pretrained(tmp_path / "start")
    local = {"Local": {"path": str(tmp_path / "start")}}
    spec = spec_of("deepseek_v3", checkpoint=local).resolve()
    run = LocalRun(spec, (0, 1), tmp_path / "run", samples=8)
    list(run.train(2))
    run.drain()
    for member in run.members:
        assert torch.equal(member.held.loaded().learner.constants[constant.name], weights[constant.name])
    schema = run.members[0].schema
    changed = dict(run.members[0].held.loaded().stored)
    assert part_digests(schema, changed, 0) == run.members[0].digests()
    changed[constant.name] = torch.zeros(4)
    assert part_digests(schema, changed, 0) != run.members[0].digests()
    read = read_slice(inferred(run.members[1].save(), schema), schema, 1)
    assert torch.equal(read[constant.name], weights[constant.name])


def test_architecture_without_known_feed_forward_layers_is_for_tier_0_only(tmp_path):
    with pytest.raises(TierError, match=r"Bloom.*only tier 0.*max_tier = 0"):
        spec_of("bloom").resolve()
    run = LocalRun(spec_of("bloom", matformer={"max_tier": 0}).resolve(), (0, 0), tmp_path, samples=8)
    list(run.train(1))
    run.drain()
    assert run.members[0].weights_hash() == run.members[1].weights_hash()
    again = Trainer(run.spec, tier=0, run=RUN, state_dir=tmp_path / "0", device="cpu")
    run.members[0].save()
    again.load()
    assert again.position.step == 1


def test_layers_with_a_norm_inside_are_not_cut_wrongly():
    """BitNet normalises over the neurons: a slice would be another function."""
    bitnet = HfAuto.fresh({"model_type": "bitnet", **SIZES}, 32)
    assert "ffn_sub_norm" in bitnet.cut_problem()
    with pytest.raises(TierError):
        Schema.of(bitnet, 1)
    assert Schema.of(bitnet, 0).num_parameters() > 0


def test_every_width_of_a_mixture_must_divide():
    with pytest.raises(TierError, match="moe_intermediate_size is 6"):
        Schema.of(family("deepseek_v3", moe_intermediate_size=6), 2)
    assert Schema.of(family("deepseek_v3", moe_intermediate_size=6), 1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "no_such"}, "none that the installed transformers knows"),
        ({}, "model_type = None"),
        ({"model_type": ["llama"]}, "none that"),
        ({"model_type": "llama", "auto_map": {"AutoModel": "evil.Model"}}, "code that comes with"),
        ({"model_type": "llama", "quantization_config": {"bits": 4}}, "whole weights"),
        ({"model_type": "llama", **SIZES, "num_attention_heads": 5}, "does not fit|cannot be built"),
        ({"model_type": "llama", **SIZES, "hidden_size": "big"}, "does not fit|cannot be built"),
        ({"model_type": "llama", **SIZES, "max_position_embeddings": 8}, "less than max_seq_len"),
        ({"model_type": "vit"}, "no causal language model"),
        ({"model_type": "llama", **SIZES, "num_hidden_layers": -1}, "does not fit|cannot be built|layers"),
    ],
)
def test_impossible_configurations_are_named_errors(config, message):
    checkpoint = {"Init": {"config": config}}
    spec = TrainSpec.model_validate({**tables(checkpoint=checkpoint), "architecture": "HfAuto"})
    with pytest.raises((CheckpointError, TierError), match=message):
        schema_of(spec)


def test_a_checkpoint_cannot_choose_kernels_or_dropout():
    model = family(
        "gpt2", attn_implementation="kernels-community/x", _attn_implementation="y", resid_pdrop=0.5
    )
    built = model.build(128, weights_of(model), CPU)
    assert built.config._attn_implementation == "sdpa"
    built.train()
    tokens = torch.zeros((1, 8), dtype=torch.long)
    assert torch.equal(built(input_ids=tokens).logits, built(input_ids=tokens).logits)


def test_spec_takes_one_description_of_fresh_weights():
    spec = spec_of("qwen3")
    assert TrainSpec.from_bytes(spec.to_bytes()) == spec
    assert b"num_attention_heads" in spec.to_bytes()
    assert b"rms_norm_eps" not in spec.to_bytes()  # only what was given
    both = {"Init": {"config": {"model_type": "qwen3"}, "hidden_size": 32}}
    with pytest.raises(ValueError, match="hidden_size cannot stand beside it"):
        TrainSpec.model_validate({**tables(checkpoint=both), "architecture": "HfAuto"})
    with pytest.raises(ValueError, match="HfAuto takes a table named config"):
        TrainSpec.model_validate({**tables(), "architecture": "HfAuto"})
    with pytest.raises(ValueError, match="HfLlama takes its own keys"):
        TrainSpec.model_validate(tables(checkpoint={"Init": {"config": {"model_type": "llama"}}}))
    with pytest.raises(ValueError, match="not JSON"):
        TrainSpec.model_validate(
            {**tables(checkpoint={"Init": {"config": {"x": float("nan")}}}), "architecture": "HfAuto"}
        )
    with pytest.raises(SpecError):
        TrainSpec.from_bytes(spec.to_bytes().replace(b"HfAuto", b"HfOther"))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "psyche_nanogpt"])
def test_saved_configuration_of_a_slice_widens_to_the_full_model(kind, tmp_path):
    model = family(kind)
    model.save_tables(model.tables_of_tier(1, 1.0), tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["matformer_tier"] == 1
    assert model.width_of(saved) == model.ffn_width // 2
    assert family_of(saved).widths == model.widths
    assert family_of(saved).tensors() == model.tensors()
    with pytest.raises(ModelError, match="cannot be a slice"):
        family_of({**saved, "matformer_base_intermediate_size": model.ffn_width + 1})


def test_missing_tensor_of_a_checkpoint_is_named(tmp_path: Path):
    model = family("qwen3")
    built = model.build(64, weights_of(model), CPU)
    state = built.state_dict()
    state.pop("model.layers.1.self_attn.q_norm.weight")
    built.save_pretrained(tmp_path, state_dict=state)
    schema = Schema.of(model, 1)
    with pytest.raises(CheckpointError, match=r"layers\.1\.self_attn\.q_norm"):
        read_slice(inferred(tmp_path, schema), schema, 1)
