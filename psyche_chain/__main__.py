"""`python -m psyche_chain` is the `psyche-chain` command."""

from psyche_chain.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
