"""Many episodes in a few processes, with a progress bar, until enough was done or something broke."""

import multiprocessing as mp
import queue
import time
from dataclasses import dataclass, field
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.programs.fuzz.episode import Failure, Tally, explore
from tests.programs.fuzz.world import World

EPISODE = 2000
"""Transactions of one episode: long enough for several epochs of three runs."""

LINE_EVERY_S = 30
"""Seconds between two lines where there is no terminal for the bar."""


@dataclass
class Result:
    """What a campaign did."""

    tally: Tally = field(default_factory=Tally)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    episodes: int = 0


def campaign(
    transactions: int, seed: int, workers: int, seconds: float | None = None, max_failures: int = 1
) -> Result:
    """Runs episodes `<seed>-<n>`, each in a world of its own, until there were enough transactions."""
    result, began, lines = Result(), time.monotonic(), 1.0
    num_episodes = -(-transactions // EPISODE)
    sizes = [EPISODE] * (num_episodes - 1) + [transactions - EPISODE * (num_episodes - 1)]
    jobs: Any = mp.get_context("spawn").Queue()
    done: Any = mp.get_context("spawn").Queue()
    for n, size in enumerate(sizes):
        jobs.put((f"{seed}-{n}", size))
    processes = [mp.get_context("spawn").Process(target=work, args=(jobs, done)) for _ in range(workers)]
    for process in processes:
        jobs.put(None)
        process.start()
    columns = ("[progress.description]{task.description}", "{task.fields[rate]}")
    bar = Progress(
        TextColumn(columns[0]),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(columns[1]),
        TimeRemainingColumn(),
    )
    try:
        with bar:
            task = bar.add_task("transactions", total=transactions, rate="")
            while result.episodes < num_episodes and len(result.failures) < max_failures:
                if seconds is not None and time.monotonic() - began > seconds:
                    break
                try:
                    failure, tally = done.get(timeout=1)
                except queue.Empty:
                    if not any(p.is_alive() for p in processes) and done.empty():
                        raise RuntimeError(
                            "the fuzzer's processes ended early: see what they printed"
                        ) from None
                    continue
                result.episodes += 1
                result.tally.add(tally)
                result.failures += [failure] if failure is not None else []
                passed = time.monotonic() - began
                rate = f"{result.tally.transactions / passed:,.0f} tx/s"
                bar.update(task, completed=result.tally.transactions, rate=rate)
                if not bar.console.is_terminal and passed >= lines * LINE_EVERY_S:
                    lines = passed // LINE_EVERY_S + 1
                    print(
                        f"{result.tally.transactions:,} of {transactions:,} transactions, {rate}", flush=True
                    )
    finally:
        for process in processes:
            process.terminate()
            process.join()
    result.seconds = time.monotonic() - began
    return result


def work(jobs: Any, done: Any) -> None:
    """A process: one episode after the other."""
    world = World()
    while (job := jobs.get()) is not None:
        done.put(explore(*job, world=world))
