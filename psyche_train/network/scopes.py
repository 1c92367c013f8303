"""Cancel scopes for clean-up."""

from __future__ import annotations

import trio


def shielded(seconds: float) -> trio.CancelScope:
    """A scope for clean-up that outside cancellation does not reach and that ends by itself."""
    return trio.CancelScope(deadline=trio.current_time() + seconds, shield=True)
