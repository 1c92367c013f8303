"""The specification: canonical bytes, every rule, schedules."""

import json

import pytest
from pydantic import ValidationError

from psyche_train.schedules import CosineSchedule, LinearSchedule, WarmupStableDecaySchedule, half_cosine
from psyche_train.spec import MAX_SPEC_BYTES, SpecError, TrainSpec


def test_canonical_bytes_round_trip_and_hash(spec):
    data = spec.to_bytes()
    assert TrainSpec.from_bytes(data) == spec
    assert json.loads(data)["optimizer"]["Distro"]["votes"] == "holders"
    assert len(spec.sha256) == 32


def test_canonical_bytes_do_not_depend_on_how_the_toml_was_written(spec, make_spec):
    same = make_spec(lr_schedule={"Constant": {"warmup_steps": 0, "base_lr": 0.004}})
    assert same.to_bytes() == spec.to_bytes()
    whole = make_spec(lr_schedule={"Constant": {"base_lr": 1}})
    assert whole.to_bytes() == make_spec(lr_schedule={"Constant": {"base_lr": 1.0}}).to_bytes()


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"\xff", b"[]", b"[" * 5000, b"null", b" " * (MAX_SPEC_BYTES + 1)],
)
def test_bytes_that_are_no_specification_are_spec_errors(data):
    with pytest.raises(SpecError) as error:
        TrainSpec.from_bytes(data)
    assert "\n" not in str(error.value)


def test_bytes_in_another_form_are_refused(spec):
    with pytest.raises(SpecError, match="canonical"):
        TrainSpec.from_bytes(json.dumps(json.loads(spec.to_bytes())).encode())
    with pytest.raises(SpecError, match="not_a_key"):
        TrainSpec.from_bytes(spec.to_bytes()[:-1] + b',"not_a_key":1}')


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": {}}, "exactly one of Init, Hub, Local, Url; found none"),
        ({"checkpoint": {"Init": {}, "Local": {"path": "x"}}}, "found Init, Local"),
        ({"checkpoint": {"Init": {"hidden_size": 100, "num_attention_heads": 3}}}, "hidden_size = 100"),
        (
            {"checkpoint": {"Init": {"num_attention_heads": 4, "num_key_value_heads": 3}}},
            "num_key_value_heads",
        ),
        ({"checkpoint": {"Init": {"intermediate_size": 66}}}, "intermediate_size = 66"),
        ({"optimizer": {"Distro": {"compression_topk": 0}}}, "greater than or equal to 1"),
        ({"optimizer": {"Distro": {"compression_chunk": 4, "compression_topk": 17}}}, "allowed 1..16"),
        ({"optimizer": {"Distro": {"compression_chunk": 129}}}, "less than or equal to 128"),
        ({"optimizer": {"Distro": {"votes": "everyone"}}}, "'senders', 'holders' or 'tokens'"),
        (
            {"optimizer": {"Distro": {"weight_decay": 1.5}}, "lr_schedule": {"Constant": {"base_lr": 1.0}}},
            "1.0 x",
        ),
        ({"optimizer": {"AdamW": {}, "SparseLoCo": {}}}, "found SparseLoCo, AdamW"),
        ({"optimizer": {"AdamW": {"votes": "senders"}}}, "'holders' or 'tokens'"),
        ({"optimizer": {"AdamW": {"betas": [0.9]}}}, "betas.1"),
        ({"optimizer": {"AdamW": {"betas": [0.9, 1.0]}}}, "less than or equal to 0.999999"),
        ({"optimizer": {"AdamW": {"betas": ["0.9", 0.95]}}}, "valid number"),
        ({"optimizer": {"AdamW": {"eps": 0.0}}}, "optimizer.AdamW.eps"),
        ({"optimizer": {"AdamW": {"compression_topk": 4}}}, "not permitted"),
        ({"optimizer": {"SparseLoCo": {"nesterov": True}}}, "needs outer_momentum above 0"),
        ({"optimizer": {"SparseLoCo": {"outer_momentum": 1.0}}}, "less than 1"),
        ({"optimizer": {"SparseLoCo": {"outer_lr": 0.0}}}, "greater than 0"),
        ({"optimizer": {"SparseLoCo": {"local_steps": 0}}}, "greater than or equal to 1"),
        ({"optimizer": {"SparseLoCo": {"compression_chunk": 4, "compression_topk": 17}}}, "allowed 1..16"),
        ({"lr_schedule": {"Constant": {"base_lr": float("nan")}}}, "finite"),
        ({"lr_schedule": {"Constant": {"base_lr": "0.1"}}}, "valid number"),
        (
            {
                "lr_schedule": {
                    "Linear": {"base_lr": 0.1, "warmup_steps": 9, "total_steps": 9, "final_lr": 0.0}
                }
            },
            "warmup_steps = 9 must be below total_steps = 9",
        ),
        ({"matformer": {"max_tier": 3}}, "less than or equal to 2"),
        ({"max_seq_len": 1}, "greater than or equal to 2"),
        ({"architecture": "HfDeepseek"}, "HfLlama"),
    ],
)
def test_an_impossible_value_is_refused_with_its_name(make_spec, changes, message):
    with pytest.raises(ValidationError, match=message.replace("(", "\\(")):
        make_spec(**changes)


def test_resolve_refuses_data_that_the_model_has_no_row_for(make_spec):
    init = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    spec = make_spec(
        checkpoint={"Init": {**init, "num_key_value_heads": 1, "vocab_size": 64}},
        data_location={"Stdlib": {"max_bytes": 50_000}},
    )
    with pytest.raises(ValueError, match="the model's vocabulary has 64"):
        spec.resolve()


def test_resolve_fills_the_hash_of_the_first_weights_and_checks_it(spec, make_spec):
    resolved = spec.resolve()
    assert len(resolved.checkpoint.chosen.weights_sha256) == 64
    assert resolved.resolve() == resolved
    other = make_spec(
        checkpoint={"Init": {**spec.checkpoint.chosen.model_dump(), "weights_sha256": "00" * 32}}
    )
    with pytest.raises(ValueError, match="first weights"):
        other.resolve()


def test_cosine_is_clamped_at_its_end_and_matches_the_formula():
    schedule = CosineSchedule(base_lr=1.0, warmup_steps=10, total_steps=110, final_lr=0.1)
    assert schedule.at(0) == pytest.approx(0.1)
    assert schedule.at(9) == schedule.at(10) == 1.0
    assert schedule.at(60) == pytest.approx(0.55)
    assert schedule.at(110) == schedule.at(10**9) == 0.1
    import math

    for i in range(101):
        assert half_cosine(i / 100) == pytest.approx((1 + math.cos(math.pi * i / 100)) / 2, abs=1e-15)


def test_linear_and_warmup_stable_decay_reach_their_ends():
    linear = LinearSchedule(base_lr=1.0, total_steps=10, final_lr=0.5)
    assert [linear.at(0), linear.at(5), linear.at(10), linear.at(99)] == [1.0, 0.75, 0.5, 0.5]
    decay = WarmupStableDecaySchedule(
        base_lr=1.0,
        warmup_steps=2,
        stable_steps=3,
        cosine_decay_steps=4,
        cosine_decay_final_lr=0.5,
        linear_decay_steps=5,
        linear_decay_final_lr=0.1,
    )
    found = [decay.at(step) for step in (1, 4, 5, 7, 9, 14, 500)]
    assert found == pytest.approx([1.0, 1.0, 1.0, 0.75, 0.5, 0.1, 0.1])


@pytest.mark.parametrize(
    ("optimizer", "folded"),
    [
        ({"Distro": {}}, ()),
        ({"SparseLoCo": {"betas": [0, 0.5]}}, ()),
        ({"SparseLoCo": {"outer_momentum": 0.9, "nesterov": True}}, ("momentum",)),
        ({"AdamW": {"betas": [0.9, 0.999]}}, ("exp_avg", "exp_avg_sq")),
    ],
)
def test_every_strategy_survives_its_canonical_bytes_and_names_its_folded_state(make_spec, optimizer, folded):
    spec = make_spec(optimizer=optimizer)
    assert TrainSpec.from_bytes(spec.to_bytes()) == spec
    assert spec.optimizer.chosen.folded == folded
