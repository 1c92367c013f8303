"""Which member opened a connection to a proxy: found in /proc, so on Linux only.

Elsewhere nobody is known, and only the link of the member that was dialled counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def socket_inode(local_port: int, remote_port: int) -> str | None:
    """Inode of the TCP socket of this machine between the two ports, as /proc names it."""
    with suppress(OSError):
        for line in (PROC / "net" / "tcp").read_text().splitlines()[1:]:
            fields = line.split()
            local, remote = (int(fields[i].rpartition(":")[2], 16) for i in (1, 2))
            if (local, remote) == (local_port, remote_port):
                return fields[9]
    return None


def holds_socket(pid: int, inode: str) -> bool:
    """Whether a process has that socket open."""
    wanted = f"socket:[{inode}]"
    with suppress(OSError):
        for entry in os.scandir(PROC / str(pid) / "fd"):
            with suppress(OSError):
                if os.readlink(entry.path) == wanted:
                    return True
    return False


def owner_of(local_port: int, remote_port: int, network_pids: Iterable[tuple[int, Path]]) -> int | None:
    """The member whose network process dialled `remote_port` from `local_port`.

    Args:
        network_pids: members, and the file that holds the pid of each one's network process.
    """
    inode = socket_inode(local_port, remote_port)
    if inode is None:
        return None
    for member, file in network_pids:
        with suppress(OSError, ValueError):
            if holds_socket(int(file.read_text()), inode):
                return member
    return None
