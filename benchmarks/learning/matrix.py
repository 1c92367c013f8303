"""The rows, in the order in which they are trained, and what the report makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.learning.results import Estimate, Results
from benchmarks.learning.rows import Row, Tables

THREE, MIXED, FOUR = (0, 0, 0), (0, 1, 1), (0, 0, 1, 2)
LONE = 1 / 3
"""A lone member trains what is its share among three."""

_ADAMW: Tables = {"AdamW": {"clip_grad_norm": 1.0}}
_LOCO: Tables = {
    "SparseLoCo": {
        "clip_grad_norm": 1.0,
        "local_steps": 2,
        "compression_chunk": 64,
        "compression_topk": 64,
        "compression_decay": 0.95,
        "ahead": True,
    }
}
_DISTRO: Tables = {
    "Distro": {
        "clip_grad_norm": 1.0,
        "compression_decay": 0.95,
        "compression_topk": 32,
        "votes": "holders",
        "compression_take": 0.3,
        "ahead": True,
    }
}


def _with(row: Row, name: str, label: str, **changes: object) -> Row:
    """A variation of a row; `changes` of optimizer keys have the prefix `optimizer_`."""
    optimizer = dict(row.optimizer)
    for key in [key for key in changes if key.startswith("optimizer_")]:
        kind = next(iter(optimizer))
        optimizer = {kind: {**optimizer[kind], key.removeprefix("optimizer_"): changes.pop(key)}}
    return replace(row, name=name, label=label, optimizer=optimizer, **changes)  # type: ignore[arg-type]


ADAMW = Row("adamw", "AdamW", THREE, _ADAMW, 2e-3, pipelined=False)
ADAMW_MIXED = _with(ADAMW, "adamw-mixed", "AdamW, two halves", tiers=MIXED)
ADAMW_LONE = _with(ADAMW, "adamw-lone", "AdamW, tier 0 alone", tiers=(0,), share=LONE)
ADAMW_PIPED = _with(ADAMW, "adamw-piped", "AdamW, pipelined, lr 1e-3", pipelined=True, lr=1e-3)
ADAMW_PLAIN = _with(
    ADAMW_MIXED, "adamw-mixed-plain", "AdamW, two halves, output not rescaled", matformer={"ffn_rescale": 0.0}
)

LOCO = Row("loco", "SparseLoCo", THREE, _LOCO, 3e-3)
LOCO_MIXED = _with(LOCO, "loco-mixed", "two halves", tiers=MIXED)
LOCO_LONE = _with(LOCO, "loco-lone", "tier 0 alone", tiers=(0,), share=LONE)
LOCO_FOUR = _with(LOCO, "loco-0012", "a half and a quarter", tiers=FOUR)
LOCO_SAME_FOUR = _with(LOCO, "loco-0000", "four full members", tiers=(0, 0, 0, 0))
LOCO_TWIN_1 = _with(LOCO, "loco-twin1", "the half, trained alone", narrower=1)
LOCO_TWIN_2 = _with(LOCO, "loco-twin2", "the quarter, trained alone", narrower=2)
LOCO_PLAIN = _with(
    LOCO_MIXED, "loco-mixed-plain", "two halves, output not rescaled", matformer={"ffn_rescale": 0.0}
)
LOCO_SENDERS = _with(
    LOCO_MIXED, "loco-mixed-senders", "two halves, divided by senders", optimizer_votes="senders"
)
LOCO_ALL_SENDERS = _with(LOCO, "loco-senders", "divided by senders", optimizer_votes="senders")
LOCO_TOKENS = _with(
    LOCO_MIXED, "loco-mixed-tokens", "two halves, weighed by tokens", optimizer_votes="tokens"
)
LOCO_HELPER = _with(
    LOCO_MIXED, "loco-mixed-helper", "two halves in helper mode (1/4 of the suffix)",
    matformer={"helper_fraction": 0.25, "helper_rotation_rounds": 20},
)  # fmt: skip
LOCO_BEHIND = _with(LOCO, "loco-behind", "not ahead", optimizer_ahead=False)
LOCO_WAITING = _with(LOCO, "loco-waiting", "not pipelined", optimizer_ahead=False, pipelined=False)

DISTRO = Row("distro", "DisTrO", THREE, _DISTRO, 1e-3)
DISTRO_MIXED = _with(DISTRO, "distro-mixed", "two halves", tiers=MIXED)
DISTRO_LONE = _with(DISTRO, "distro-lone", "tier 0 alone", tiers=(0,), share=LONE)
DISTRO_BEFORE = _with(
    DISTRO, "distro-before", "as it was: k = 8, lr 2e-3, all taken, not ahead", lr=2e-3,
    optimizer_compression_topk=8, optimizer_compression_take=1.0, optimizer_ahead=False,
)  # fmt: skip
DISTRO_PLAIN = _with(
    DISTRO_MIXED, "distro-mixed-plain", "two halves, output not rescaled", matformer={"ffn_rescale": 0.0}
)
DISTRO_SENDERS = _with(
    DISTRO_MIXED, "distro-mixed-senders", "two halves, divided by senders", optimizer_votes="senders"
)
DISTRO_TOKENS = _with(
    DISTRO_MIXED, "distro-mixed-tokens", "two halves, weighed by tokens", optimizer_votes="tokens"
)
DISTRO_HELPER = _with(
    DISTRO_MIXED, "distro-mixed-helper", "two halves in helper mode (1/4 of the suffix)",
    matformer={"helper_fraction": 0.25, "helper_rotation_rounds": 20},
)  # fmt: skip

MATRIX = (
    ADAMW, LOCO, LOCO_MIXED, LOCO_LONE, DISTRO, DISTRO_MIXED, DISTRO_LONE, LOCO_TWIN_1, ADAMW_MIXED, ADAMW_LONE,
    LOCO_FOUR, LOCO_TWIN_2, LOCO_PLAIN, DISTRO_BEFORE, LOCO_HELPER, LOCO_TOKENS, LOCO_SENDERS, LOCO_BEHIND,
    DISTRO_SENDERS, DISTRO_TOKENS, DISTRO_PLAIN, DISTRO_HELPER, LOCO_SAME_FOUR, LOCO_WAITING, ADAMW_PIPED,
    ADAMW_PLAIN, LOCO_ALL_SENDERS,
)  # fmt: skip

TABLES = (
    ("Strategies, three full members", (ADAMW, ADAMW_PIPED, LOCO, LOCO_ALL_SENDERS, LOCO_BEHIND, LOCO_WAITING,
                                        DISTRO, DISTRO_BEFORE), ADAMW),
    ("Mixed tiers, SparseLoCo", (LOCO, LOCO_MIXED, LOCO_SAME_FOUR, LOCO_FOUR, LOCO_LONE, LOCO_TWIN_1, LOCO_TWIN_2,
                                 LOCO_PLAIN, LOCO_TOKENS, LOCO_HELPER), LOCO),
    ("Mixed tiers, SparseLoCo, divided by senders", (LOCO_ALL_SENDERS, LOCO_SENDERS, LOCO_LONE), LOCO_ALL_SENDERS),
    ("Mixed tiers, DisTrO", (DISTRO, DISTRO_MIXED, DISTRO_LONE, DISTRO_PLAIN, DISTRO_SENDERS, DISTRO_TOKENS,
                             DISTRO_HELPER), DISTRO),
    ("Mixed tiers, AdamW", (ADAMW, ADAMW_MIXED, ADAMW_LONE, ADAMW_PLAIN), ADAMW),
)  # fmt: skip

PLOTS = (
    ("strategies", "Strategies at equal tokens", (ADAMW, LOCO, LOCO_BEHIND, DISTRO, DISTRO_BEFORE)),
    ("tiers", "SparseLoCo with mixed tiers", (LOCO, LOCO_MIXED, LOCO_FOUR, LOCO_PLAIN, LOCO_LONE)),
    ("distro", "DisTrO with mixed tiers", (DISTRO, DISTRO_MIXED, DISTRO_PLAIN, DISTRO_LONE)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that was set before anything was measured."""

    text: str
    limit: float
    measure: Callable[[Results], Estimate | None]
    at_most: bool = True


GOALS = (
    Goal("SparseLoCo's loss against AdamW's, at most 1 % above", 0.01, lambda r: r.excess(LOCO, ADAMW)),
    Goal("the same, divided by senders", 0.01, lambda r: r.excess(LOCO_ALL_SENDERS, ADAMW)),
    Goal("DisTrO's loss against AdamW's, at most 1 % above", 0.01, lambda r: r.excess(DISTRO, ADAMW)),
    Goal("mixed tiers 0,1,1 at full width against homogeneous, at most 1 % above, SparseLoCo", 0.01,
         lambda r: r.excess(LOCO_MIXED, LOCO)),
    Goal("the same, SparseLoCo divided by senders on both sides", 0.01,
         lambda r: r.excess(LOCO_SENDERS, LOCO_ALL_SENDERS)),
    Goal("the same, DisTrO", 0.01, lambda r: r.excess(DISTRO_MIXED, DISTRO)),
    Goal("the same, AdamW", 0.01, lambda r: r.excess(ADAMW_MIXED, ADAMW)),
    Goal("mixed tiers 0,0,1,2 at full width against homogeneous, at most 1 % above, SparseLoCo", 0.01,
         lambda r: r.excess(LOCO_FOUR, LOCO_SAME_FOUR)),
    Goal("value of helpers, at least 90 %, SparseLoCo", 0.9,
         lambda r: r.helpers(LOCO_MIXED, LOCO, LOCO_LONE), at_most=False),
    Goal("the same, SparseLoCo divided by senders on both sides", 0.9,
         lambda r: r.helpers(LOCO_SENDERS, LOCO_ALL_SENDERS, LOCO_LONE), at_most=False),
    Goal("the same, DisTrO", 0.9, lambda r: r.helpers(DISTRO_MIXED, DISTRO, DISTRO_LONE), at_most=False),
    Goal("the same, AdamW", 0.9, lambda r: r.helpers(ADAMW_MIXED, ADAMW, ADAMW_LONE), at_most=False),
    Goal("tier 1 of 0,1,1 against its twin trained on its own, not above", 0.0,
         lambda r: r.excess(LOCO_MIXED, LOCO_TWIN_1, 1, 0)),
    Goal("tier 1 of 0,0,1,2 against its twin, not above", 0.0, lambda r: r.excess(LOCO_FOUR, LOCO_TWIN_1, 1, 0)),
    Goal("tier 2 of 0,0,1,2 against its twin, not above", 0.0, lambda r: r.excess(LOCO_FOUR, LOCO_TWIN_2, 2, 0)),
)  # fmt: skip
