"""`Peers`: shards as blobs, named by the manifest, fetched from whoever has them.

The network side is `psyche_train.network`: this module says which blobs are needed, opens them where the blob
store keeps them, and lists what a member that has the data can serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from psyche_train.blobs import BlobStore, BlobStoreError
from psyche_train.data.errors import DataError, MissingData
from psyche_train.data.local import open_prepared
from psyche_train.data.manifest import FILE_NAME, DataManifest
from psyche_train.data.shards import Shard, ShardTokens
from psyche_train.spec.data import PeersData


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard in a file, as it may be put into a blob store."""

    path: Path
    blob: bytes


Offer = bytes | ShardFile
"""What a member can put into its blob store for others."""


def find_prepared(location: PeersData, folder: Path | None) -> ShardTokens | None:
    """The prepared data on this machine, if they are here.

    Raises:
        DataError: what is there is damaged or other data.
    """
    if folder is not None and not (folder / FILE_NAME).exists():
        raise DataError(
            f"{folder} holds no {FILE_NAME}: name the folder that psyche-train prepare-data wrote"
        )
    for path in (folder, Path(location.path).expanduser() if location.path else None):
        if path is not None and (path / FILE_NAME).exists():
            return open_prepared(path, location.manifest)
    return None


def offered_files(tokens: ShardTokens) -> list[Offer]:
    """The manifest and the shards of prepared data."""
    files = [ShardFile(shard.path, shard.entry.blob) for shard in tokens.shards]
    return [tokens.manifest.to_bytes(), *files]


def open_blobs(manifest_id: str, blobs: Path) -> ShardTokens:
    """Open shards that lie in the folder of a blob store.

    Raises:
        MissingData: names the blobs that are not there: the manifest, and once that is there, shards.
    """
    store = BlobStore(blobs)
    wanted = bytes.fromhex(manifest_id)
    try:
        data = store.get(wanted)
    except BlobStoreError:
        raise MissingData(
            f"the manifest of the run's data ({manifest_id[:16]}) is with peers", [wanted]
        ) from None
    manifest = DataManifest.from_bytes(data, f"blob {manifest_id}", manifest_id)
    missing = [entry.blob for entry in manifest.shards if not store.has(entry.blob)]
    if missing:
        raise MissingData(
            f"{len(missing)} of {len(manifest.shards)} shards of the run's data are with peers",
            missing,
            manifest.blobs,
        )
    shards = [
        Shard(
            f"shard {number} ({store.path(entry.blob)})",
            store.path(entry.blob),
            entry,
            pieces=partial(store.manifest, entry.blob),
        )
        for number, entry in enumerate(manifest.shards)
    ]
    return ShardTokens(manifest, shards)
