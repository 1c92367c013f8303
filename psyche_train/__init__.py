"""Everything that knows tensors, data and peers, and nothing of Solana."""
