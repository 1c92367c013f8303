"""Everything that knows tensors, data and peers, and nothing of Solana."""

__version__ = "0.1.0"
