"""The `psyche-chain` command."""
