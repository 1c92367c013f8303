"""Work that the client gives to threads, done in the run loop instead, for a simulated time.

Threads end when the operating system likes, and a mock clock does not wait for them. Here the work is one
synchronous call at the end of a drawn wait. As in the real thing the wait cannot be cancelled, unless the
caller says so; a crash of the member ends it all the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

import trio

from localnet.simulator.time import SimClock


class Host(Protocol):
    """The simulated process in whose name work is done."""

    async def work(self, call: Callable[[], Any], *, abandon: bool) -> Any: ...
    def sync(self) -> None: ...


host: ContextVar[Host | None] = ContextVar("host", default=None)
"""Whose task this is; inherited by every task that a member starts."""


async def _run_sync(
    call: Callable[..., Any],
    *args: object,
    abandon_on_cancel: bool = False,
    cancellable: bool = False,
    limiter: trio.CapacityLimiter | None = None,
    thread_name: str | None = None,
) -> Any:
    owner = host.get()
    assert owner is not None, "a thread was started outside of a simulated member"
    async with limiter or contextlib.nullcontext():
        return await owner.work(partial(call, *args), abandon=abandon_on_cancel or cancellable)


def _fsync(_descriptor: int) -> None:
    """The disk is a folder in memory: there is nothing to wait for, but it may be full."""
    if (owner := host.get()) is not None:
        owner.sync()


@contextlib.contextmanager
def simulated_threads(clock: SimClock) -> Iterator[None]:
    """`trio.to_thread.run_sync` works as described above, `os.fsync` asks the member's disk, and sleep is cheap."""
    real, real_fsync, real_sleep = trio.to_thread.run_sync, os.fsync, trio.sleep
    trio.to_thread.run_sync = _run_sync  # type: ignore[assignment]
    os.fsync = _fsync  # type: ignore[assignment]
    trio.sleep = clock.sleep
    try:
        yield
    finally:
        trio.to_thread.run_sync, os.fsync, trio.sleep = real, real_fsync, real_sleep
