"""Find the feed-forward layers of a transformers model, and how a MatFormer slice cuts them.

Known forms, by the names of a module's projections:

- gated: `gate_proj`, `up_proj`, `down_proj`, as in Llama, Mistral, Qwen and DeepSeek's shared experts;
- gated with both in one tensor: `gate_up_proj`, `down_proj`, gate above up, as in Phi-3;
- plain: two projections, as in GPT-2 and GPT-NeoX;
- experts: 3-D tensors `gate_up_proj` and `down_proj`; every expert is cut alike.

A form that is not known is never guessed at: the tensors of such a layer count as whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_GATED = ("gate_proj", "up_proj")
_FUSED = "gate_up_proj"
_PLAIN = (
    ("up_proj", "down_proj"),
    ("c_fc", "c_proj"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("fc1", "fc2"),
    ("fc_in", "fc_out"),
)


@dataclass(frozen=True, slots=True)
class Ffn:
    """One feed-forward layer, or the experts of one."""

    cuts: dict[str, tuple[int, int]]
    """Parameter -> axis of the neurons, and in how many groups they lie along it."""
    down: str
    """The parameter that the neurons' output goes through."""
    module: str
    """The module whose input (a projection) or output (experts) is multiplied by the slice's factor."""
    experts: bool


def find_ffns(model: nn.Module) -> list[Ffn]:
    """Return the layers that can be cut, in module order."""
    found = (_experts(path, module) or _dense(path, module) for path, module in model.named_modules())
    return [ffn for ffn in found if ffn is not None]


def scale_ffns(model: nn.Module, factor: float) -> None:
    """Multiply what the neurons of every feed-forward layer put out, from now on.

    A projection gets its input multiplied, so that its bias, which every width has whole, stays as it is.
    """
    for ffn in find_ffns(model):
        module = model.get_submodule(ffn.module)
        if ffn.experts:
            module.register_forward_hook(_ScaleOutput(factor))
        else:
            module.register_forward_pre_hook(_ScaleInput(factor))


class _ScaleInput:
    """Forward pre-hook."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * self.factor, *inputs[1:])


class _ScaleOutput:
    """Forward hook."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * self.factor


def _experts(path: str, module: nn.Module) -> Ffn | None:
    """Experts in 3-D tensors; transformers marks such modules with their layout."""
    own = dict(module.named_parameters(recurse=False))
    gated = getattr(module, "has_gate", None)
    up = own.get(_FUSED if gated else "up_proj")
    if gated is None or up is None or "down_proj" not in own or up.dim() != 3:
        return None
    if getattr(module, "has_bias", False) or getattr(module, "has_post_expert_norm", False):
        return None  # their output is not a plain sum over the neurons
    across = bool(getattr(module, "is_transposed", False))  # [experts, in, out] instead of [experts, out, in]
    halves = 2 if gated and getattr(module, "is_concatenated", True) else 1  # interleaved pairs are a prefix
    name = _FUSED if gated else "up_proj"
    cuts = {f"{path}.{name}": (2 if across else 1, halves), f"{path}.down_proj": (1 if across else 2, 1)}
    return Ffn(cuts, f"{path}.down_proj", path, experts=True)


def _dense(path: str, module: nn.Module) -> Ffn | None:
    children = {
        name: child for name, child in module.named_children() if isinstance(child, nn.Linear | Conv1D)
    }
    ups: tuple[str, ...]
    if {*_GATED, "down_proj"} <= children.keys():
        ups, down, groups = _GATED, "down_proj", 1
    elif {_FUSED, "down_proj"} <= children.keys():
        ups, down, groups = (_FUSED,), "down_proj", 2
    else:
        pair = next((pair for pair in _PLAIN if set(pair) <= children.keys()), None)
        if pair is None:
            return None
        ups, down, groups = (pair[0],), pair[1], 1
    cuts: dict[str, tuple[int, int]] = {}
    for name in ups:
        across = isinstance(children[name], Conv1D)
        cuts[f"{path}.{name}.weight"] = (1 if across else 0, groups)
        if children[name].bias is not None:
            cuts[f"{path}.{name}.bias"] = (0, groups)
    cuts[f"{path}.{down}.weight"] = (0 if isinstance(children[down], Conv1D) else 1, 1)
    return Ffn(cuts, f"{path}.{down}.weight", f"{path}.{down}", experts=False)
