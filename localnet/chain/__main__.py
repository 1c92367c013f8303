"""`python -m localnet.chain`: serve the embedded chain in this process."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import sys
from pathlib import Path

from localnet.chain.bank import KEEP_SLOTS
from localnet.chain.rpc import Node
from localnet.chain.server import ChainConfig, StartError, serve
from localnet.chain.store import StoreError

OK = 0
ERROR = 1
_OPEN = (
    "warning: this chain listens on {host}, not on loopback: everybody who reaches it can take any number of "
    "lamports from the faucet and fill the disk; there is no TLS and no password"
)


def default_state_dir() -> Path:
    """Where a chain lives when nothing is said: beside the user's other state."""
    import os

    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "psyche-localnet"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(config: ChainConfig) -> int:
    """Serve until told to stop; the exit status."""

    def ready(node: Node) -> None:
        url = f"http://{config.host}:{config.port}"
        if not is_loopback(config.host):
            print(_OPEN.format(host=config.host), file=sys.stderr, flush=True)
        print(
            f"chain ready: RPC {url}, websocket ws://{config.host}:{config.port + 1}, slot {node.view.slot}, "
            f"state in {config.state_dir}",
            file=sys.stderr,
            flush=True,
        )

    try:
        asyncio.run(serve(config, on_ready=ready))
    except (StartError, StoreError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        pass
    return OK


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m localnet.chain", description=__doc__)
    parser.add_argument("--port", type=int, default=8899, help="RPC port; the websocket takes the next one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--state-dir", type=Path, default=None, help="where the chain's state is kept")
    parser.add_argument("--slot-ms", type=int, default=400, help="length of a slot in milliseconds")
    parser.add_argument("--reset", action="store_true", help="start a new chain")
    parser.add_argument("--keep-transactions", type=int, default=200_000, help="length of the history")
    parser.add_argument("--keep-slots", type=int, default=KEEP_SLOTS, help="slots that the history holds")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        config = ChainConfig(
            state_dir=args.state_dir or default_state_dir(),
            host=args.host,
            port=args.port,
            slot_ms=args.slot_ms,
            reset=args.reset,
            keep_transactions=args.keep_transactions,
            keep_slots=args.keep_slots,
        )
    except StartError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return ERROR
    return run(config)


if __name__ == "__main__":
    sys.exit(main())
