"""Entry of the network process: `python -m psyche_train.network --socket PATH --log PATH`.

Exit status: 0 the client stopped it or went away; 1 it failed, the log says why (the client starts it again).
"""

from __future__ import annotations

import argparse
import logging
import logging.handlers
import sys
import time
from collections.abc import Sequence

import trio

LOG_BYTES = 4 << 20
LOG_FILES = 3
LIBRARY_LINES_PER_MINUTE = 60


class _Throttle(logging.Filter):
    """Lets the library write a limited number of lines a minute: strangers can provoke them at will."""

    def __init__(self) -> None:
        super().__init__()
        self._minute = 0
        self._lines = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("psyche_train"):
            return True
        if record.levelno < logging.WARNING:
            return False
        minute = int(time.monotonic() / 60)
        if minute != self._minute:
            self._minute, self._lines = minute, 0
        self._lines += 1
        return self._lines <= LIBRARY_LINES_PER_MINUTE


def main(argv: Sequence[str] | None = None) -> int:
    """Connect to the client's socket and serve it."""
    parser = argparse.ArgumentParser(prog="python -m psyche_train.network", description=__doc__)
    parser.add_argument("--socket", required=True, help="Unix socket on which the client listens")
    parser.add_argument("--log", help="log file; stderr without it")
    options = parser.parse_args(argv)
    handler: logging.Handler = logging.StreamHandler()
    if options.log:
        handler = logging.handlers.RotatingFileHandler(options.log, maxBytes=LOG_BYTES, backupCount=LOG_FILES)
    handler.setFormatter(
        logging.Formatter("t=%(asctime)s level=%(levelname)s logger=%(name)s pid=%(process)d %(message)s")
    )
    handler.addFilter(_Throttle())

    from psyche_train.network.protocol import Channel
    from psyche_train.network.service import serve_client
    from psyche_train.network.streams import describe

    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)

    async def run() -> None:
        channel = Channel(await trio.open_unix_socket(options.socket))
        await serve_client(channel)

    try:
        trio.run(run)
    except KeyboardInterrupt:
        return 0
    except Exception as exc:
        logging.getLogger("psyche_train.network").exception("event=failed why=%s", describe(exc))
        print(f"error: {describe(exc)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
