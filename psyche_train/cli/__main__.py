"""`python -m psyche_train.cli` is the `psyche-train` command."""

from psyche_train.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
