"""`manifest.json`: length and SHA-256 of every file of a checkpoint, and what the checkpoint is.

| key | meaning |
|---|---|
| `schema_version` | 1 |
| `schema_sha256` | of the model at full width (`Schema.model_sha256`): the same for all tiers |
| `tier` | the width that the files hold |
| `weights_sha256` | hash of the weights at that width |
| `max_tier` | the T of that hash (see `psyche_train.fold.digest`) |
| `outer_sha256` | of a slice: digests of the parts that it lacks, from the one beside it outwards |
| `folded` | of a slice with momenta of the fold: `weights_sha256` and `outer_sha256` with them counted in |
| `files` | name -> `bytes`, `sha256` |
| `tiers` | tier -> the files that make up the model, without what is a member's own |

With `outer_sha256` a slice proves by itself that it belongs to a full model of a known hash: its own parts
and these give that hash, and no other digests do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from psyche_train.checkpoints.errors import CheckpointError, DamagedError, disk

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 8 << 20
STATE = "trainer_state.safetensors"
"""A member's error buffers and inner optimizer; never published."""
POSITION = "position.json"
_MAX_FILES = 20_000


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Length and hash of a file."""

    num_bytes: int
    sha256: str
    """Lower-case hex."""

    @classmethod
    def of_bytes(cls, data: bytes) -> FileEntry:
        """Of bytes in memory."""
        return cls(len(data), hashlib.sha256(data).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> FileEntry:
        """Of a file, read in pieces.

        Raises:
            StorageError: it cannot be read.
        """
        with disk(path, "cannot read"), path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(file.tell(), digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedProof:
    """Hashes of a slice and its momenta together, as a run's members show them."""

    weights_sha256: str
    outer_sha256: tuple[str, ...]

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> FoldedProof:
        """Check the values of a parsed table; raises what `CheckpointManifest.from_tables` translates."""
        return cls(
            weights_sha256=_hex(tables["weights_sha256"]),
            outer_sha256=tuple(_hex(value) for value in tables["outer_sha256"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointManifest:
    """What `manifest.json` says."""

    files: Mapping[str, FileEntry]
    schema_sha256: str
    tier: int
    max_tier: int
    weights_sha256: str
    outer_sha256: tuple[str, ...] = field(default=())
    folded: FoldedProof | None = None

    def to_tables(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "schema_version": 1,
            "schema_sha256": self.schema_sha256,
            "tier": self.tier,
            "max_tier": self.max_tier,
            "weights_sha256": self.weights_sha256,
            "outer_sha256": list(self.outer_sha256),
            **({"folded": asdict(self.folded)} if self.folded else {}),
            "tiers": {str(self.tier): sorted(set(self.files) - {STATE, POSITION})},
            "files": {
                name: {"bytes": entry.num_bytes, "sha256": entry.sha256} for name, entry in self.files.items()
            },
        }

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any], where: str) -> CheckpointManifest:
        """Check every value of a parsed manifest.

        Raises:
            DamagedError: names the value.
        """
        try:
            if tables["schema_version"] != 1:
                raise DamagedError(f"{where} has version {tables['schema_version']!r}, this program reads 1")
            entries = tables["files"]
            if not isinstance(entries, dict) or not 0 < len(entries) <= _MAX_FILES:
                raise DamagedError(f"{where} lists no files, or too many")
            files = {}
            for name, entry in entries.items():
                if not is_plain_name(name):
                    raise DamagedError(f"{where} names {name[:100]!r}, which is not a file beside it")
                files[name] = FileEntry(_count(entry["bytes"], 2**63), _hex(entry["sha256"]))
            return cls(
                files=files,
                schema_sha256=_hex(tables["schema_sha256"]),
                tier=_count(tables["tier"], 32),
                max_tier=_count(tables["max_tier"], 32),
                weights_sha256=_hex(tables["weights_sha256"]),
                outer_sha256=tuple(_hex(value) for value in tables["outer_sha256"]),
                folded=FoldedProof.from_tables(tables["folded"]) if "folded" in tables else None,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, DamagedError):
                raise
            raise DamagedError(f"{where} is not a manifest: {error!r}") from error

    def verify(self, folder: Path, names: Collection[str] | None = None) -> None:
        """Compare files on disk with the manifest, reading each once and holding none.

        Args:
            names: only these; None is all.

        Raises:
            DamagedError: one is missing, torn or altered.
        """
        for name, entry in self.files.items():
            if names is not None and name not in names:
                continue
            path = folder / name
            if not path.is_file():
                raise DamagedError(f"{path} is missing, the manifest lists it")
            if path.stat().st_size != entry.num_bytes or FileEntry.of_file(path) != entry:
                raise DamagedError(f"{path} is not what the manifest says")


def read_manifest(folder: Path) -> CheckpointManifest | None:
    """The manifest of a checkpoint directory; None where there is none, as in other people's checkpoints.

    Raises:
        DamagedError: it is not a manifest.
    """
    from psyche_train.checkpoints.tensors import read_json

    path = folder / MANIFEST
    if not path.is_file():
        return None
    return CheckpointManifest.from_tables(read_json(path, MAX_MANIFEST_BYTES), str(path))


def is_plain_name(name: object) -> bool:
    """Whether a name from a file that others wrote names a visible file in the same folder, on any system."""
    return (
        isinstance(name, str)
        and 0 < len(name.encode(errors="replace")) <= 200
        and not name.startswith(".")
        and name.isprintable()
        and not any(character in name for character in '/\\:*?"<>|')
        and name.isascii()
    )


def _hex(value: object) -> str:
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise CheckpointError(f"{str(value)[:80]!r} is no SHA-256")
    return value


def _count(value: object, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise CheckpointError(f"{str(value)[:80]!r} is no number from 0 to {limit - 1}")
    return value
