"""A member of two ranks on a real chain: what is left when a rank, or the member itself, is killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from psyche_chain.chain.state import SlotStatus
from psyche_chain.cli.exit_codes import TRAINER
from tests.e2e.cluster import TINY, Cluster, MemberProcess, cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]

CONFIG = TINY.replace("init_min_clients = 3", "init_min_clients = 1").replace(
    "epoch_time = 150", "epoch_time = 15"
)


async def test_a_killed_rank_ends_the_member_with_its_own_status_and_no_process_is_left(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path, tiers=(0,), steps=100_000, config=CONFIG) as run:
        (member,) = run.members
        member.command = command(run, member)
        member.start()
        await run.until("it trains", lambda _: len(member.events("commit")) >= 2)
        (rank,) = ranks_of(member)
        os.kill(rank, signal.SIGKILL)
        await wait_for(lambda: member.exit_code is not None, member, 60)
        assert member.exit_code == TRAINER, member.tail()
        errors = [event["message"] for event in member.events("error")]
        assert any("rank 1" in text and "start the member again" in text for text in errors), errors
        assert "start the member again" in member.tail()
        await wait_for(lambda: not session_of(member), member, 15)
        assert [slot.status for slot in (await run.state()).members()] == [SlotStatus.DEPARTED]

        member.start()  # as the sentence says
        before = len(member.events("commit"))
        await run_until(run, member, lambda: len(member.events("commit")) >= before + 2)
        assert ranks_of(member)
        member.kill()
        await wait_for(lambda: not session_of(member), member, 30)


def command(run: Cluster, member: MemberProcess) -> list[str]:
    """The real command, with two ranks."""
    url = member.command[member.command.index(str(run.run.key)) + 1]
    options = {"--rpc": url, "--keypair": member.keypair, "--state-dir": member.folder, "--tier": 0}
    options |= {"--device": "cpu", "--ranks": 2, "--threads": 1}
    words = [str(word) for pair in options.items() for word in pair]
    return [sys.executable, "-m", "psyche_chain", "join", str(run.run.key), *words]


async def run_until(run: Cluster, member: MemberProcess, done: Callable[[], bool]) -> None:
    await run.until("it trains again", lambda _: done())
    assert member.exit_code is None


async def wait_for(done: Callable[[], bool], member: MemberProcess, limit_s: float) -> None:
    with trio.move_on_after(limit_s):
        while not done():
            await trio.sleep(0.1)
        return
    raise AssertionError(f"not within {limit_s} s: {session_of(member)}\n{member.tail()}")


def session_of(member: MemberProcess) -> dict[int, str]:
    """Live processes that the member started, and itself: pid -> command line."""
    assert member.process is not None
    member.process.poll()
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        state, session = fields[0], int(fields[3])
        if session == member.process.pid and state not in "ZX":
            found[int(folder.name)] = words
    return found


def ranks_of(member: MemberProcess) -> list[int]:
    """The processes of the ranks beside the first."""
    return [pid for pid, words in session_of(member).items() if "multiprocessing.spawn" in words]
