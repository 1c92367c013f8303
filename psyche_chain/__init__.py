"""Everything that knows Solana: programs, accounts, run administration, the member's client."""

from psyche_train import __version__

__all__ = ["__version__"]
