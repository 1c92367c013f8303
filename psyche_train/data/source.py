"""Open a source of tokens: every kind of `data_location` comes down to `Tokens`."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from psyche_train.data.errors import DataError, MissingData
from psyche_train.data.local import open_local
from psyche_train.data.manifest import DataManifest
from psyche_train.data.peers import Offer, find_prepared, offered_files, open_blobs
from psyche_train.data.shards import MemoryTokens, ShardTokens, Tokens
from psyche_train.data.stdlib import dummy_tokens, own_stdlib
from psyche_train.spec.data import (
    DummyData,
    FixedSource,
    HttpData,
    HubData,
    LocalData,
    ParquetData,
    PeersData,
    StdlibData,
)


def open_source(
    location: FixedSource, window: int, *, blobs: Path | None = None, folder: Path | None = None
) -> tuple[Tokens, DataManifest | None]:
    """Return a source's tokens, verified as they are read, and its manifest (None for Dummy).

    Args:
        window: tokens of a sample; sources that are made of whole samples must have just these.
        blobs: folder of a blob store; what peers serve is found there.
        folder: data of the run that this member has elsewhere than the run says.

    Raises:
        MissingData: peers have to be asked.
        DataError: missing, unreadable or other data; says what to do.
    """
    if isinstance(location, DummyData):
        return MemoryTokens(dummy_tokens(location.num_tokens)), None
    if isinstance(location, StdlibData):
        return _open_stdlib(location, blobs)
    tokens = _open_shards(location, window, blobs, folder)
    if tokens.sequence_tokens and tokens.sequence_tokens != window:
        raise DataError(
            f"the data are samples of {tokens.sequence_tokens} tokens, max_seq_len = {window - 1} needs {window}: "
            "prepare them for this length"
        )
    return tokens, tokens.manifest


def offers(location: FixedSource, folder: Path | None = None) -> list[Offer]:
    """What this member has of a source that peers may need; empty for sources that everyone gets elsewhere."""
    if isinstance(location, StdlibData):
        text, manifest = own_stdlib(location.max_bytes)
        if location.manifest in ("", manifest.id.hex()):
            return [manifest.to_bytes(), text]
    elif isinstance(location, PeersData):
        found = find_prepared(location, folder)
        if found is not None:
            return offered_files(found)
    return []


def _open_shards(
    location: LocalData | HttpData | HubData | ParquetData | PeersData,
    window: int,
    blobs: Path | None,
    folder: Path | None,
) -> ShardTokens:
    if isinstance(location, LocalData):
        return open_local(folder or Path(location.path), location.token_size_in_bytes, location.manifest)
    if isinstance(location, PeersData):
        return _open_peers(location, blobs, folder)
    if isinstance(location, HttpData):
        from psyche_train.data.http import open_http

        return open_http(location)
    from psyche_train.data.convert import open_converted  # datasets and pyarrow take long to import

    return open_converted(location, window)


def _open_peers(location: PeersData, blobs: Path | None, folder: Path | None) -> ShardTokens:
    found = find_prepared(location, folder)
    if found is not None:
        return found
    if not location.manifest:
        raise DataError(
            "data_location.Peers.path does not name a folder of prepared data here: the run's creator needs it; "
            "make it with psyche-train prepare-data"
        )
    if blobs is None:
        raise MissingData(
            "the run's data are with peers, not on this machine: members fetch them when they join",
            [bytes.fromhex(location.manifest)],
        )
    return open_blobs(location.manifest, blobs)


def _open_stdlib(location: StdlibData, blobs: Path | None) -> tuple[Tokens, DataManifest]:
    text, manifest = own_stdlib(location.max_bytes)
    found = manifest.id.hex()
    if location.manifest in ("", found):
        return MemoryTokens(np.frombuffer(text, dtype=np.uint8)), manifest
    if blobs is not None:
        from_peers = open_blobs(location.manifest, blobs)
        return from_peers, from_peers.manifest
    made_with = f" (made with Python {location.python})" if location.python else ""
    raise MissingData(
        f"this machine's standard library (Python {platform.python_version()}) has other text than the "
        f"run's{made_with}: manifest {found[:16]}, the run's is {location.manifest[:16]}. Members get the "
        f"run's text from peers; elsewhere use Python {location.python or 'of the version that created the run'}",
        [bytes.fromhex(location.manifest)],
    )


__all__: Sequence[str] = ["offers", "open_source"]
