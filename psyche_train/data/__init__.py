"""Training tokens: sources with hashes, windows, a held-out part, a shuffle without memory."""
