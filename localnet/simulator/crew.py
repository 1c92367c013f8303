"""Processes that play schedules, one at a time each."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType

from localnet.simulator.tally import Drawing, Failure, Tally

PLAYS = 1000
"""Schedules after which a process is replaced by a new one, whatever it may have gathered in its memory."""
POLL_S = 1.0


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    seed: int | None = None
    plays: int = 0


class Crew:
    """A number of processes; use as a context manager, they end with it."""

    def __init__(self, count: int, drawing: Drawing, shrinks: bool) -> None:
        self._drawing, self._shrinks = drawing, shrinks
        self._context = multiprocessing.get_context("spawn")
        self._workers = [self._start() for _ in range(count)]

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
            worker.process.join()

    def give(self, seeds: deque[int]) -> None:
        """Give every process that is idle one of the seeds."""
        for number, worker in enumerate(self._workers):
            if worker.seed is not None or not seeds:
                continue
            if worker.plays >= PLAYS:
                worker.pipe.close()
                worker.process.join()
                worker = self._workers[number] = self._start()
            worker.seed = seeds.popleft()
            worker.plays += 1
            with suppress(BrokenPipeError):  # `take` sees that it is dead
                worker.pipe.send(worker.seed)

    def take(self) -> Iterator[Tally]:
        """What came in, after a wait of at most a second; a process that died is replaced."""
        ready = wait([w.pipe for w in self._workers], POLL_S)
        for number, worker in enumerate(self._workers):
            if worker.pipe not in ready:
                continue
            seed, worker.seed = worker.seed, None
            try:
                yield worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                worker.process.join()
                self._workers[number] = self._start()
                if seed is not None:
                    message = f"the process that played it ended with status {worker.process.exitcode}"
                    failure = Failure(seed, "simulator", message, self._drawing.plan(seed), 0)
                    yield Tally(schedules=1, failures=[failure])

    def _start(self) -> _Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_work, args=(there, self._drawing, self._shrinks), daemon=True)
        process.start()
        there.close()
        return _Worker(process, here)


def _work(pipe: Connection, drawing: Drawing, shrinks: bool) -> None:
    """Play the seeds that come; it ends with whoever sends them."""
    from localnet.simulator.campaign import one

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the campaign that was interrupted ends its processes
    os.nice(10)  # a campaign gives way to whatever else the machine does
    with suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(one(pipe.recv(), drawing, shrinks))
