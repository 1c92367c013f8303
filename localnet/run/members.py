"""Client processes of one run: `psyche-chain join` as a user would type it, restarted when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import trio

from localnet.run.progress import EventTail, MemberProgress

STOP_GRACE_S = 20.0


@dataclass
class Member:
    """One member: its wallet, its state directory and the process that is running it now."""

    progress: MemberProgress
    keypair: Path
    state_dir: Path
    run: str
    rpc: str
    listen: str
    """Multiaddr to accept peers on."""
    announce: str | None = None
    """Multiaddr that peers are told instead."""
    prefix: tuple[str, ...] = ()
    """Words before the command: where it runs in a network of its own."""
    threads: int = 1
    device: str = "cpu"
    process: subprocess.Popen[bytes] | None = None
    tail: EventTail = field(init=False)

    def __post_init__(self) -> None:
        self.tail = EventTail(self.state_dir / "events.jsonl")

    @property
    def name(self) -> str:
        """How logs and the screen call this member."""
        return f"member {self.progress.index}"

    def command(self) -> list[str]:
        """What is executed; the same on every restart."""
        return [
            *(*self.prefix, sys.executable, "-m", "psyche_chain", "join", self.run),
            *("--rpc", self.rpc),
            *("--keypair", str(self.keypair)),
            *("--tier", str(self.progress.tier)),
            *("--state-dir", str(self.state_dir)),
            *("--listen", self.listen),
            *(("--announce", self.announce) if self.announce else ()),
            *("--device", self.device),
            *("--threads", str(self.threads)),
        ]

    def start(self) -> None:
        """Start the process; its output goes to ``client.log`` in the state directory."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        log = (self.state_dir / "client.log").open("ab")
        env = dict(os.environ, NO_COLOR="1", OMP_NUM_THREADS=str(self.threads))
        try:
            # A session of its own: Ctrl-C in the terminal reaches the launcher, which then stops members in order.
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        finally:
            log.close()

    def poll(self) -> int | None:
        """Exit status of the process, None while it runs; reads new events as a side effect."""
        for event in self.tail.read():
            self.progress.apply(event)
        return None if self.process is None else self.process.poll()

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.progress.state = "killed"

    async def stop(self) -> None:
        """Ask the process to leave and wait up to 20 s; then kill it. Safe to call twice."""
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_GRACE_S):
            while process.poll() is None:
                await trio.sleep(0.1)
        if process.poll() is None:
            process.kill()
        await trio.to_thread.run_sync(process.wait)

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of the process's output, for an error message."""
        try:
            text = (self.state_dir / "client.log").read_text(errors="replace")
        except FileNotFoundError:
            return "(no output)"
        return "\n".join(text.splitlines()[-lines:])
