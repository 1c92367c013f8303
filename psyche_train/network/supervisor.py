"""Keeping the network process running: started, watched, killed when it hangs, started again.

libp2p is imported only there, never in the process that uses this module.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import trio

import psyche_train
from psyche_train.network.protocol import (
    AnyMessage,
    Ask,
    Channel,
    Hello,
    ProtocolError,
    Ready,
    State,
    Stop,
)
from psyche_train.network.scopes import shielded
from psyche_train.network.types import NetworkConfig, NetworkDown, NetworkError

logger = logging.getLogger(__name__)

START_S = 60.0
"""From the start of the process until it listens; importing libp2p takes a second of a free core."""
HEARTBEAT_S = 3.0
HANG_S = 20.0
"""Without any frame for this long, the process is killed."""
STOP_S = 4.0
BACKOFF_FIRST_S = 0.1
BACKOFF_CAP_S = 5.0
HEALTHY_S = 30.0
"""A process that ran this long starts again without delay."""
GIVE_UP_AFTER = 6
"""Starts in a row that never got as far as listening."""
MAX_SOCKET_PATH = 100
"""Bytes; the kernel's limit is 107, macOS's 103."""
HEARTBEAT_REQUEST = 0

OnFrame = Callable[[AnyMessage, bytes], None]


class Supervisor:
    """Runs the network process of one client.

    Args:
        config: handed to the process over the socket.
        on_ready: called with a channel and the addresses whenever a process listens; tells it everything.
        on_frame: called with every frame that is not the supervisor's own.
    """

    def __init__(
        self,
        config: NetworkConfig,
        on_ready: Callable[[Channel, list[str]], Awaitable[None]],
        on_frame: OnFrame,
    ) -> None:
        self.channel: Channel | None = None
        """To the process that listens now; None while there is none."""
        self.pid: int | None = None
        self.restarts = 0
        self.state: State | None = None
        """Newest answer to a heartbeat."""
        self._config = config
        self._on_ready = on_ready
        self._on_frame = on_frame
        self._listen = config.listen
        self._heard = 0.0
        self._log = config.socket_path.parent / "network.log"

    async def run(self) -> None:
        """Keep a process running until cancelled, then stop it.

        Raises:
            NetworkDown: it failed `GIVE_UP_AFTER` times in a row before it listened.
        """
        failures = starts = 0
        pid_file = self._config.socket_path.parent / "network.pid"
        _kill_orphan(pid_file)
        with _socket_file(self._config.socket_path) as path:
            listener = await _listen(path)
            async with listener:
                while True:
                    self.restarts = starts
                    starts += 1
                    began = trio.current_time()
                    listened = await self._run_once(listener, path, pid_file)
                    ran_s = trio.current_time() - began
                    failures = 0 if listened else failures + 1
                    if failures >= GIVE_UP_AFTER:
                        raise NetworkDown(
                            f"the network process failed {failures} times before it listened on "
                            f"{self._listen}: {self._last_words()}; see {self._log}"
                        )
                    if not listened:
                        self._listen = self._config.listen  # perhaps the port of the last one is taken
                    streak = failures if ran_s < HEALTHY_S else 0
                    await trio.sleep(min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2**streak))

    async def _run_once(self, listener: trio.SocketListener, path: Path, pid_file: Path) -> bool:
        """One life of the process; whether it got as far as listening."""
        listened = False
        async with _process(path, self._log) as process, trio.open_nursery() as nursery:
            self.pid = process.pid
            await trio.Path(pid_file).write_text(str(process.pid))

            async def until_exit() -> None:
                await process.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_exit)
            channel = None
            try:
                with trio.move_on_after(START_S):
                    channel = Channel(await listener.accept())
                    await self._greet(channel)
                    listened = True
                if listened and channel is not None:
                    await self._talk(channel)
            except (OSError, ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                logger.warning("event=network_process_lost pid=%d why=%s", process.pid, exc)
            finally:
                self.channel = self.pid = None
                with shielded(STOP_S):
                    if channel is not None:
                        if process.poll() is None:
                            await _say_stop(channel)
                            await process.wait()
                        await channel.aclose()
            nursery.cancel_scope.cancel()
        logger.info("event=network_process_ended pid=%d status=%s", process.pid, process.returncode)
        return listened

    async def _greet(self, channel: Channel) -> None:
        config = self._config
        hello = Hello(
            topic=config.topic,
            listen=self._listen,
            announce=list(config.announce),
            blob_dir=str(config.blob_dir),
            log_path=str(config.log_path),
            replicas=config.replicas,
            push_blob_bytes=config.push_limits.blob_bytes,
            push_member_bytes=config.push_limits.member_bytes,
            push_reserve_bytes=config.push_limits.reserve_bytes,
        )
        await channel.send(hello, config.seed)
        frame = await channel.receive()
        if frame is None or not isinstance(frame[0], Ready):
            raise ProtocolError("the network process ended before it was ready")
        addresses = frame[0].addresses
        self._listen = _same_port(config.listen, addresses)
        self.channel = channel  # before it is told everything: what changes meanwhile is sent after that
        await self._on_ready(channel, addresses)

    async def _talk(self, channel: Channel) -> None:
        """Receive frames; return when the process hangs or closes the socket."""
        self._heard = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def beat() -> None:
                while trio.current_time() - self._heard < HANG_S:
                    with trio.move_on_after(HANG_S):
                        await channel.send(Ask(request=HEARTBEAT_REQUEST))
                    await trio.sleep(HEARTBEAT_S)
                logger.warning("event=network_process_hangs silent_s=%.0f", HANG_S)
                nursery.cancel_scope.cancel()

            nursery.start_soon(beat)
            try:
                while (frame := await channel.receive()) is not None:
                    self._heard = trio.current_time()
                    if isinstance(frame[0], State):
                        self.state = frame[0]
                    self._on_frame(*frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError) as exc:
                logger.warning("event=network_socket_broken why=%s", exc)
            nursery.cancel_scope.cancel()

    def _last_words(self) -> str:
        """The last error line of the process."""
        with suppress(OSError), self._log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode("utf-8", "replace").splitlines()
            return next((line for line in reversed(lines) if line.startswith("error:")), "no message")
        return "no log"


def _kill_orphan(pid_file: Path) -> None:
    """Kill the network process of a client that was killed while the process hung: it would keep the port.

    A process ends by itself when its client does, unless it is stopped or stuck.
    """
    with suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        command = _command_of(pid)
        if "psyche_train.network" in command and str(pid_file.with_name("network.log")) in command:
            logger.warning("event=orphan_killed pid=%d", pid)
            os.kill(pid, signal.SIGKILL)


def _command_of(pid: int) -> str:
    """Command line of a process; empty if there is none."""
    proc = Path(f"/proc/{pid}/cmdline")
    if proc.parents[1].joinpath("self").exists():
        return proc.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@asynccontextmanager
async def _process(path: Path, log: Path) -> AsyncIterator[trio.Process]:
    """The process; killed, for certain, when the context ends."""
    root = str(Path(psyche_train.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{inherited}" if inherited else root}
    command = [sys.executable, "-m", "psyche_train.network", "--socket", str(path), "--log", str(log)]
    with log.open("ab") as errors:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=environment
        )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()


async def _say_stop(channel: Channel) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await channel.send(Stop())
        while await channel.receive() is not None:
            pass


@contextmanager
def _socket_file(wanted: Path) -> Iterator[Path]:
    """A path for the socket that is short enough; if not as wanted, in a directory only this user enters."""
    with ExitStack() as stack:
        path = wanted
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="psyche-"))) / "net.sock"
        path.unlink(missing_ok=True)
        stack.callback(path.unlink, missing_ok=True)
        yield path


async def _listen(path: Path) -> trio.SocketListener:
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await sock.bind(str(path))
        os.chmod(path, 0o600)  # nobody can connect before `listen`
    except OSError as exc:
        sock.close()
        raise NetworkError(
            f"cannot create the network socket {path}: {exc.strerror}; choose another state directory"
        ) from exc
    sock.listen(4)
    return trio.SocketListener(sock)


def _same_port(configured: str, addresses: list[str]) -> str:
    """The address to listen on next time: others know the port that the system chose."""
    if not configured.endswith("/tcp/0") or not addresses:
        return configured
    port = addresses[0].rpartition("/tcp/")[2]
    return f"{configured[: -len('0')]}{port}" if port.isdecimal() else configured
