"""Everything that knows Solana: programs, accounts, run administration, the member's client."""

__version__ = "0.1.0"
