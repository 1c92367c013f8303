"""How a member computes: micro-batches, counted tokens, precision, checkpointing; on every device present."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F

from psyche_train.jobs import NotFinite
from psyche_train.learner import Learner, LearnerOptions
from psyche_train.models.initial import initial_weights
from psyche_train.models.nanogpt import NanoGPT
from psyche_train.models.schema import Schema
from psyche_train.resolve import schema_of
from psyche_train.spec import TrainSpec
from tests.train.conftest import tables

DEVICES = [
    "cpu",
    *(["cuda:0"] if torch.cuda.is_available() else []),
    *(["mps"] if torch.backends.mps.is_available() else []),
]
WINDOWS = torch.arange(5 * 13).reshape(5, 13) * 11 % 160


def learner(device: str = "cpu", kind: str = "llama", **options) -> Learner:
    if kind == "llama":
        schema = schema_of(TrainSpec.model_validate(tables()))
    else:
        sizes = {"vocab_size": 160, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
        switches = {"value_embeddings": True, "skips": True, "logit_softcap": 20.0, "norm_weights": True}
        schema = Schema.of(NanoGPT.fresh({**sizes, **switches, "zero_init": False}, 16), 0)
    where = torch.device(device)
    model = schema.family.build(schema.family.ffn_width, initial_weights(schema, 1, 0), where)
    return Learner(model, schema, where, LearnerOptions(**options))


def gradients(member: Learner, windows: torch.Tensor = WINDOWS, clip: float | None = None):
    return member.gradients(windows, cancelled=lambda: False, clip_norm=clip)


def masked() -> torch.Tensor:
    """Very unequal numbers of counted tokens per sample, and one sample without any."""
    windows = WINDOWS.clone()
    windows[0, 2:] = -100
    windows[1, 1:] = -100
    windows[3, 5:9] = -100
    return windows


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("windows", [WINDOWS, masked()], ids=["whole", "masked"])
def test_loss_and_gradient_are_those_of_the_mean_over_all_counted_tokens(device, windows):
    member = learner(device, precision="fp32")
    logits = member.model(input_ids=windows[:, :-1].clamp(min=0).to(device), use_cache=False).logits
    expected = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten().to(device), ignore_index=-100)
    expected.backward()
    value = float(expected.detach())
    wanted = {name: weight.grad.clone() for name, weight in member.weights.items()}
    for micro_batch_tokens in (1, 24, 30, 8192):
        other = learner(device, precision="fp32", micro_batch_tokens=micro_batch_tokens)
        loss, found = gradients(other, windows)
        assert loss == pytest.approx(value, rel=1e-5)
        assert other.loss(windows) == pytest.approx(value, rel=1e-5)
        assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)
        assert all(weight.grad is None for weight in other.weights.values())


def test_batch_without_a_counted_token_changes_nothing():
    windows = WINDOWS.clone()
    windows[:, 1:] = -100
    loss, found = gradients(learner(), windows)
    assert loss == 0.0
    assert not any(bool(gradient.any()) for gradient in found.values())


def test_clipping_is_by_the_norm_of_all_tensors_together():
    whole, clipped = gradients(learner())[1], gradients(learner(), clip=0.01)[1]
    norm = torch.cat([gradient.flatten() for gradient in clipped.values()]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-4)
    name = "lm_head.weight"
    assert torch.allclose(clipped[name] / clipped[name].norm(), whole[name] / whole[name].norm(), atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "nanogpt"])
def test_checkpointed_activations_give_the_same_gradient(kind):
    loss, found = gradients(learner(kind=kind, checkpoint_activations=True))
    wanted_loss, wanted = gradients(learner(kind=kind))
    assert loss == pytest.approx(wanted_loss, rel=1e-6)
    assert all(torch.allclose(found[name], wanted[name], atol=1e-7) for name in wanted)
    assert all(bool(gradient.any()) for name, gradient in wanted.items() if "mix" not in name)


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_rounds_the_gradient_and_leaves_weights_fp32(device):
    member = learner(device, precision="bf16")
    loss, found = gradients(member)
    wanted_loss, wanted = gradients(learner(device, precision="fp32"))
    assert loss == pytest.approx(wanted_loss, rel=0.02)
    assert loss != wanted_loss
    assert {weight.dtype for weight in member.weights.values()} == {torch.float32}
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert (
        torch.cosine_similarity(found["lm_head.weight"].flatten(), wanted["lm_head.weight"].flatten(), dim=0)
        > 0.99
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))),
    reason="torch.compile needs a C++ compiler on the CPU",
)
def test_compiled_model_gives_the_same_gradient():
    loss, found = gradients(learner(compile=True))
    wanted_loss, wanted = gradients(learner())
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)


def test_not_finite_loss_is_named_and_weights_come_back():
    member = learner()
    offset = {name: torch.full_like(weight, torch.inf) for name, weight in member.weights.items()}
    before = {name: weight.detach().clone() for name, weight in member.weights.items()}
    with pytest.raises(NotFinite):
        member.gradients(WINDOWS, cancelled=lambda: False, clip_norm=None, offset=offset)
    assert all(torch.equal(weight, before[name]) for name, weight in member.weights.items())


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="micro_batch_tokens = 0"):
        LearnerOptions(micro_batch_tokens=0)
    with pytest.raises(ValueError, match="choose auto, fp32 or bf16"):
        LearnerOptions(precision="fp8")  # type: ignore[arg-type]
