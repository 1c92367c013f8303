"""Reading ranges of remote files: HTTP(S), and through fsspec whatever it knows (`gs://`, `s3://`).

Every read has a deadline; within it, what may pass (no connection, a cut one, 5xx, 429, 408) is tried again with
growing pauses. What will not pass (404, 403, a server that is something else) is an error at once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import httpx

from psyche_train.data.errors import DataError

DEADLINE_S = 120.0
"""For one read, all attempts together."""
STALL_S = 10.0
"""Longest time without a byte in an attempt."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0


class TransferError(DataError):
    """A remote file cannot be read."""


class NotThere(TransferError):
    """There is no such file."""


class NoRanges(Exception):
    """The server answers with the whole file to a request for a part."""


class _Passing(Exception):
    """A failure that may pass."""


class Transfer(Protocol):
    """Reads of remote files."""

    def read(self, url: str, start: int, stop: int) -> bytes:
        """The bytes of an interval, all of them.

        Raises:
            TransferError: not within the deadline, or never. NoRanges: only whole files are served.
        """
        ...

    def whole(self, url: str, limit: int, take: Callable[[bytes], object]) -> None:
        """A file from its beginning, in parts as they come.

        `take` may be called again from the first part on, after a call with empty bytes that says so.

        Raises:
            TransferError: not within the deadline (a part resets it), longer than `limit`, or never.
        """
        ...


def transfer_for(url: str) -> Transfer:
    """The way to read a URL.

    Raises:
        TransferError: nothing here knows its scheme.
    """
    scheme = url.partition("://")[0]
    return _http() if scheme in ("http", "https") else FsspecTransfer(scheme)


def small(url: str, limit: int) -> bytes:
    """A whole small file."""
    parts: list[bytes] = []

    def take(part: bytes) -> None:
        parts.append(part) if part else parts.clear()

    transfer_for(url).whole(url, limit, take)
    return b"".join(parts)


def patiently(
    url: str, attempt: Callable[[float], bytes], deadline_s: float, progress: Callable[[], int] = lambda: 0
) -> bytes:
    """Call `attempt` until it returns, pausing longer and longer.

    Args:
        attempt: takes the seconds that are left; raises _Passing for what may pass.
        progress: whenever this has grown, the deadline and the pauses begin anew.

    Raises:
        TransferError: the deadline passed; says what happened last.
    """
    until, pause_s, tries, reached = time.monotonic() + deadline_s, FIRST_PAUSE_S, 0, progress()
    while True:
        tries += 1
        try:
            return attempt(max(0.1, until - time.monotonic()))
        except _Passing as error:
            if progress() > reached:
                until, pause_s, reached = time.monotonic() + deadline_s, FIRST_PAUSE_S, progress()
            wait_s = pause_s * random.uniform(0.5, 1.0)
            if time.monotonic() + wait_s >= until:
                raise TransferError(
                    f"{url} cannot be read: {error} ({tries} tries in {deadline_s:.0f} s). Check the network and "
                    "the server; what has arrived is kept"
                ) from None
            time.sleep(wait_s)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


class HttpTransfer:
    """HTTP(S), with connections kept open between reads; threads may share it."""

    def __init__(self, *, deadline_s: float = DEADLINE_S, stall_s: float = STALL_S) -> None:
        self.deadline_s = deadline_s
        self._client = httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(stall_s, connect=min(5.0, stall_s)),
            headers={"Accept-Encoding": "identity", "User-Agent": "psyche-train"},
        )

    def read(self, url: str, start: int, stop: int) -> bytes:
        """See `Transfer.read`."""

        def attempt(left_s: float) -> bytes:
            return self._range(url, start, stop, time.monotonic() + left_s)

        return patiently(url, attempt, self.deadline_s)

    def whole(self, url: str, limit: int, take: Callable[[bytes], object]) -> None:
        """See `Transfer.whole`."""
        done = 0
        take(b"")

        def attempt(left_s: float) -> bytes:
            nonlocal done
            del left_s  # a large file may take long, as long as it moves
            headers = {"Range": f"bytes={done}-"} if done else {}
            with _passing(url), self._client.stream("GET", url, headers=headers) as response:
                if response.status_code == 416 and done:
                    return b""  # what was asked for begins at its end
                self._check(url, response)
                if done and response.status_code != 206:
                    done = 0
                    take(b"")
                for part in response.iter_bytes(1 << 20):
                    done += len(part)
                    if done > limit:
                        raise TransferError(f"{url} has more than {limit} bytes: it is not the run's file")
                    if part:
                        take(part)
            return b""

        patiently(url, attempt, self.deadline_s, lambda: done)

    def _range(self, url: str, start: int, stop: int, until: float) -> bytes:
        parts, num_bytes = [], 0
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        with _passing(url), self._client.stream("GET", url, headers=headers) as response:
            if response.status_code == 416:
                raise TransferError(f"{url} ends before byte {stop}: it is not the run's file")
            self._check(url, response)
            if response.status_code != 206:
                raise NoRanges(url)
            for part in response.iter_bytes():
                parts.append(part)
                num_bytes += len(part)
                if num_bytes > stop - start:
                    raise _Passing(f"the server sent more than the {stop - start} bytes that were asked for")
                if time.monotonic() > until:
                    raise _Passing(f"only {num_bytes} of {stop - start} bytes came in time")
        if num_bytes < stop - start:
            raise _Passing(f"the server sent {num_bytes} of {stop - start} bytes")
        return b"".join(parts)

    @staticmethod
    def _check(url: str, response: httpx.Response) -> None:
        status = response.status_code
        if status in (404, 410):
            raise NotThere(f"{url} is not on the server ({status}): check data_location")
        if status in (408, 425, 429) or status >= 500:
            raise _Passing(f"the server answered {status}")
        if status not in (200, 206):
            raise TransferError(f"{url} is refused by the server ({status}): check data_location and access")


class FsspecTransfer:
    """Any file system that fsspec knows."""

    def __init__(self, scheme: str, *, deadline_s: float = DEADLINE_S) -> None:
        import fsspec

        self.deadline_s = deadline_s
        try:
            self._files: Any = fsspec.filesystem(scheme)
        except (ImportError, ValueError) as error:
            raise TransferError(f"{scheme}:// cannot be read here: {error}") from None

    def read(self, url: str, start: int, stop: int) -> bytes:
        """See `Transfer.read`."""

        def attempt(left_s: float) -> bytes:
            del left_s
            try:
                data = bytes(self._files.cat_file(url, start=start, end=stop))
            except FileNotFoundError:
                raise NotThere(f"{url} is not there: check data_location") from None
            except PermissionError as error:
                raise TransferError(
                    f"{url} is refused: {error}. Check the credentials of the bucket"
                ) from None
            except OSError as error:
                raise _Passing(_reason(error)) from None
            if len(data) != stop - start:
                raise TransferError(f"{url} ends before byte {stop}: it is not the run's file")
            return data

        return patiently(url, attempt, self.deadline_s)

    def whole(self, url: str, limit: int, take: Callable[[bytes], object]) -> None:
        """See `Transfer.whole`."""
        try:
            size = int(self._files.size(url))
        except FileNotFoundError:
            raise NotThere(f"{url} is not there: check data_location") from None
        except OSError as error:
            raise TransferError(f"{url} cannot be read: {_reason(error)}") from None
        if size > limit:
            raise TransferError(f"{url} has {size} bytes, allowed {limit}: it is not the run's file")
        take(b"")
        for start in range(0, size, 1 << 20):
            take(self.read(url, start, min(size, start + (1 << 20))))


@contextmanager
def _passing(url: str) -> Iterator[None]:
    """Tell httpx's failures that may pass from those that will not."""
    try:
        yield
    except httpx.TransportError as error:
        if isinstance(error, httpx.UnsupportedProtocol):
            raise TransferError(f"{url} cannot be read: {error}") from None
        raise _Passing(_reason(error)) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TransferError(f"{url} cannot be read: {_reason(error)}. Check data_location") from None


_shared: HttpTransfer | None = None
_lock = threading.Lock()


def _http() -> HttpTransfer:
    global _shared
    with _lock:
        if _shared is None:
            _shared = HttpTransfer()
        return _shared


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
