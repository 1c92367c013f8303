"""`python -m localnet` is the `psyche-localnet` command."""

from localnet.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
