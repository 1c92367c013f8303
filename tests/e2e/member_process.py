"""`python -m tests.e2e.member_process RUN RPC KEYPAIR STATE_DIR TIER [DATA]`: one member, as `join` runs it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from psyche_chain.client import JoinOptions, run_client
from psyche_chain.errors import PsycheError


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    run, rpc, keypair, state_dir, tier, *data = sys.argv[1:]
    try:
        return run_client(
            JoinOptions(
                run=run,
                rpc=[rpc],
                keypair=Path(keypair),
                state_dir=Path(state_dir),
                tier=int(tier),
                device="cpu",
                threads=1,
                data=Path(data[0]) if data else None,
            )
        )
    except PsycheError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
