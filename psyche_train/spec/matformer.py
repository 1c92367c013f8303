"""`[model.LLM.matformer]`: nested slices."""

from __future__ import annotations

from pydantic import Field

from psyche_train.spec.tables import Table


class MatFormer(Table):
    """Nested model slices: tier t keeps the first 1/2**t of every feed-forward layer."""

    max_tier: int = Field(default=0, ge=0, le=2)
    """Smallest slice that may join; every tier's chunk grid is a prefix of the full one's."""
    ffn_rescale: float = Field(default=1.0, ge=0, le=2)
    """Tier t multiplies its feed-forward output by ``2 ** (t * ffn_rescale)``."""
