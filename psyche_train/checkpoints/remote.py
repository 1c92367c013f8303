"""One way to name a checkpoint wherever it is: `hub:org/name@revision`, a URL of fsspec's, or a path."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psyche_train.checkpoints import cloud, hub
from psyche_train.checkpoints.errors import CheckpointError, disk
from psyche_train.checkpoints.locate import checkpoint_at

_HUB = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+|[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a user wrote, taken apart."""

    text: str
    repo_id: str | None = None
    revision: str | None = None

    @property
    def is_url(self) -> bool:
        """Whether fsspec is asked."""
        return "://" in self.text

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Take a reference apart.

        Raises:
            CheckpointError: it begins like a Hub reference and is none.
        """
        if not text.startswith("hub:"):
            return cls(text)
        found = _HUB.fullmatch(text)
        if found is None:
            raise CheckpointError(f"{text!r} is not hub:ORG/NAME or hub:ORG/NAME@REVISION")
        return cls(text, found["repo"], found["revision"])


def fetch(text: str, *, tier: int = 0, cache: Path | None = None) -> Path:
    """The local directory of a checkpoint; one that is elsewhere is fetched and verified first.

    Args:
        tier: only this tier's files are fetched where they are by themselves.
        cache: where those of URLs are kept; None is the user's cache.

    Raises:
        CheckpointError: it is not there, cannot be reached, or is damaged.
    """
    reference = Reference.parse(text)
    if reference.repo_id is not None:
        return hub.download(reference.repo_id, reference.revision, tier=tier)
    if not reference.is_url:
        return checkpoint_at(Path(text))
    base = cache or cache_folder()
    target = cloud.cached(text if tier == 0 else f"{text.rstrip('/')}#tier{tier}", base)
    with _one_at_a_time(base, target.name):
        return cloud.download(text, target, tier=tier)


def publish(
    checkpoint: Path, text: str, *, message: str = "Upload a checkpoint", private: bool = False
) -> str:
    """Upload a checkpoint; return a reference that names exactly what was uploaded.

    Args:
        text: `hub:ORG/NAME` or `hub:ORG/NAME@BRANCH`, or a URL of a folder that the checkpoint becomes.

    Raises:
        CheckpointError: the checkpoint is damaged, or the place cannot be written.
    """
    reference = Reference.parse(text)
    if reference.repo_id is not None:
        commit = hub.upload(
            checkpoint, reference.repo_id, branch=reference.revision, message=message, private=private
        )
        return f"hub:{reference.repo_id}@{commit}"
    if not reference.is_url:
        raise CheckpointError(
            f"{text!r} is no place to upload to: hub:ORG/NAME, s3://, gs:// or another URL is needed"
        )
    return cloud.upload(checkpoint, text.rstrip("/"))


def cache_folder() -> Path:
    """Where checkpoints that came from URLs are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "psyche" / "checkpoints"


@contextmanager
def _one_at_a_time(base: Path, name: str) -> Iterator[None]:
    """Members of one machine share the cache: the second waits and finds what the first fetched."""
    with disk(base, "cannot create"):
        base.mkdir(parents=True, exist_ok=True)
        file = (base / f".{name}.lock").open("a")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
