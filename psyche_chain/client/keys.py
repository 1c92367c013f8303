"""Key files."""

from __future__ import annotations

import json
from pathlib import Path

from solders.keypair import Keypair

from psyche_chain.errors import ConfigError


def load_keypair(path: Path) -> Keypair:
    """Read a key file as Solana's tools write it."""
    try:
        return Keypair.from_bytes(bytes(json.loads(path.read_text())))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"the key file {path} cannot be read: {error}", "see psyche-chain wallet new"
        ) from None
