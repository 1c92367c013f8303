"""Which directory a user means by a checkpoint: itself, or the newest one in a member's folder."""

from __future__ import annotations

from pathlib import Path

from psyche_train.errors import ConfigError, NotFoundError


def find_checkpoint(path: Path) -> Path:
    """Return the directory with `config.json` that `path` names.

    `path` may be a checkpoint or an export; a folder of checkpoints (`step-...`); a member's state folder; or
    what `psyche-train train --out` left, whose first member is taken.

    Raises:
        NotFoundError: there is nothing. ConfigError: there is something else.
    """
    path = path.expanduser()
    if not path.exists():
        raise NotFoundError(f"{path} does not exist", "name a checkpoint, or a member's state folder")
    if not path.is_dir():
        raise ConfigError(f"{path} is not a directory", "name the directory that holds its config.json")
    if (path / "config.json").is_file():
        return path
    for folder in (path, path / "checkpoints", path / "members" / "0" / "checkpoints"):
        if found := sorted(p for p in folder.glob("step-*") if (p / "config.json").is_file()):
            return max(found, key=lambda p: (p.name[:13], p.stat().st_mtime_ns))
    raise ConfigError(
        f"{path} holds no checkpoint", "a checkpoint has a config.json and model*.safetensors files"
    )
