"""The folder in which a member keeps its blobs, log and checkpoints, and who may use it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import IO

from psyche_chain.errors import PsycheError

_MAX_SOCKET_PATH_BYTES = 90
"""Unix socket paths end at 104 (macOS) or 108 (Linux) bytes."""


class StateDir:
    """Paths in a member's state folder, and the locks that keep a second process out.

    Two processes that share a folder would tear its log; two that share a wallet in one run would commit
    against each other. Both are refused. The locks end with the process, however it ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = path / "blobs"
        self.records = path / "records.log"
        self.events = path / "events.jsonl"
        self.lock = path / "client.lock"
        self._settings = path / "client.json"
        self._held: list[IO[str]] = []

    def prepare(self) -> None:
        """Create the folder.

        Raises:
            PsycheError: it cannot be created or written, or holds something else under a name of ours.
        """
        folders = (self.path, self.blobs, self.path / "checkpoints")
        files = (self.records, self.events, self.lock, self._settings)
        for found in (*folders, *files):
            if found.exists() and found.is_dir() != (found in folders):
                raise PsycheError(
                    f"{found} is not a {'folder' if found in folders else 'file'}, this member keeps one there",
                    "move it away, or choose another folder with --state-dir",
                )
        try:
            self.blobs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PsycheError(
                f"the state folder {self.path} cannot be used: {error.strerror}",
                "choose another with --state-dir",
            ) from None

    def acquire(self, wallet: bytes, run_state: bytes) -> None:
        """Take both locks.

        Raises:
            PsycheError: another process uses the folder, or the wallet in this run.
        """
        self._take(
            self.lock,
            f"another process uses the state folder {self.path}",
            "stop it first, or choose another folder with --state-dir",
        )
        name = hashlib.sha256(b"psyche member" + wallet + run_state).hexdigest()[:24]
        self._take(
            _runtime_dir() / f"{name}.lock",
            "another process on this machine is a member of this run with the same wallet",
            "stop it first, or use another wallet",
        )

    def release(self) -> None:
        """Give the locks back."""
        while self._held:
            self._held.pop().close()

    def socket_path(self) -> Path:
        """Where the network process listens: in the folder if its path is short enough for a socket."""
        path = self.path.resolve() / "net.sock"
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
            return path
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return _runtime_dir() / f"{name}.sock"

    def listen_address(self, asked: str) -> str:
        """`asked`, with port 0 replaced by one that stays the same over restarts as long as it is free.

        So the addresses on chain stay right when a member is started again.
        """
        parts = asked.split("/")
        if "tcp" not in parts[:-1] or parts[parts.index("tcp") + 1] != "0":
            return asked
        host = parts[2] if len(parts) > 2 and parts[1] == "ip4" else "0.0.0.0"
        known = self._read_settings().get("port")
        port = (
            known if type(known) is int and 0 < known < 65_536 and _is_free(host, known) else _free_port(host)
        )
        if port != known:
            beside = self._settings.with_suffix(".new")
            beside.write_text(json.dumps({"port": port}))
            beside.replace(self._settings)
        parts[parts.index("tcp") + 1] = str(port)
        return "/".join(parts)

    def _read_settings(self) -> dict[str, object]:
        try:
            settings = json.loads(self._settings.read_text())
        except (OSError, ValueError):
            return {}
        return settings if isinstance(settings, dict) else {}

    def _take(self, path: Path, message: str, hint: str) -> None:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip()
            file.close()
            raise PsycheError(message + (f" (process {pid})" if pid else ""), hint) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._held.append(file)


def _runtime_dir() -> Path:
    """A folder of this user with a short path."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(base) / "psyche" if base else Path(tempfile.gettempdir()) / f"psyche-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port
