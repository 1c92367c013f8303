"""Checkpoints in Hugging Face repositories: pinned by commit, verified file by file, uploaded as one commit.

Everything goes through `huggingface_hub`, so its settings hold: HF_TOKEN, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from psyche_train.checkpoints.errors import CheckpointError, DamagedError, StorageError, disk
from psyche_train.checkpoints.files import weight_files
from psyche_train.checkpoints.manifest import FileEntry
from psyche_train.checkpoints.publish import model_files, public_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = 5
FIRST_PAUSE_S = 1.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
_STALE = re.compile(
    r"(tier\d+/.*|model[^/]*\.safetensors(\.index\.json)?|matformer_manifest\.json|[^/]+\.bin)"
)
"""Files of an older checkpoint that a newer one must not be mixed with."""


def pin(repo_id: str, revision: str | None, *, passes: tuple[type[Exception], ...] = ()) -> str:
    """The commit that a branch, tag or commit names now, as 40 hexadecimal digits.

    Args:
        passes: errors of the library that the caller handles.

    Raises:
        CheckpointError: the repository or revision is not there, or cannot be reached.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    name = _shown(repo_id, revision)
    commit = _retried(name, lambda: _api().model_info(repo_id, revision=revision).sha, passes=passes)
    if commit is None or not _COMMIT.fullmatch(commit):
        raise CheckpointError(f"{name}: the Hub named no commit for it")
    return commit


def download(repo_id: str, revision: str | None, *, tier: int = 0) -> Path:
    """Fetch a checkpoint into the Hub's cache, going on where an earlier try stopped; return its directory.

    Args:
        tier: if the repository has a directory `tier<t>/` of this tier, the full weights are not fetched.

    Raises:
        CheckpointError: it is not there, cannot be reached, does not fit on the disk, or arrived damaged.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    name = _shown(repo_id, revision)
    try:
        commit = pin(repo_id, revision, passes=(OfflineModeIsEnabled,))
        tree = _retried(name, lambda: _tree(repo_id, commit), passes=(OfflineModeIsEnabled,))
    except OfflineModeIsEnabled:
        return _cached(repo_id, revision, tier)
    try:
        wanted = model_files(tree, tier)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error
    _check_room(name, sum(tree[file].size or 0 for file in wanted))

    def fetch(**options: Any) -> Path:
        return Path(
            snapshot_download(
                repo_id,
                revision=commit,
                endpoint=_endpoint(),
                allow_patterns=wanted,
                max_workers=4,
                **options,
            )
        )

    with disk(_cache(), f"cannot store {name} in"):
        folder = _retried(name, fetch)
        damaged = [file for file in wanted if not _is_as_listed(folder / file, tree[file])]
        if damaged:
            logger.warning("fetched again, it arrived damaged repo=%s files=%s", name, ",".join(damaged))
            wanted = damaged
            folder = _retried(name, lambda: fetch(force_download=True))
            damaged = [file for file in damaged if not _is_as_listed(folder / file, tree[file])]
    if damaged:
        raise DamagedError(f"{name}: {', '.join(damaged)} does not have the hash that the Hub lists, twice")
    return folder


def upload(
    checkpoint: Path,
    repo_id: str,
    *,
    branch: str | None = None,
    private: bool = False,
    message: str = "Upload a checkpoint",
) -> str:
    """Make a checkpoint the content of a repository, in one commit; return the commit.

    The repository is created if it is not there. What was uploaded before and is still there is not sent again.
    Files of an older checkpoint go in the same commit; everything else in the repository stays.

    Raises:
        CheckpointError: the checkpoint is damaged, the token may not write, or the Hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    name = _shown(repo_id, branch)
    files = public_files(checkpoint)
    api = _api()
    _retried(name, lambda: api.create_repo(repo_id, private=private or None, exist_ok=True), writes=True)
    if branch is not None:
        _retried(name, lambda: api.create_branch(repo_id, branch=branch, exist_ok=True), writes=True)

    def commit() -> str:
        there = _tree(repo_id, branch)
        stale = [file for file in there if _STALE.fullmatch(file) and file not in files]
        operations: list[Any] = [CommitOperationDelete(file) for file in stale]
        operations += [
            CommitOperationAdd(file, part.content if isinstance(part.content, bytes) else str(part.content))
            for file, part in files.items()
        ]
        made = api.create_commit(repo_id, operations, commit_message=message, revision=branch)
        return str(made.oid)

    oid = _retried(name, commit, writes=True)
    tree = _retried(name, lambda: _tree(repo_id, oid))
    for file, part in files.items():
        listed = tree.get(file)
        if listed is None or not _entry_matches(part.entry, listed):
            raise DamagedError(
                f"{name}: after the upload the Hub does not list {file} as it was sent; try again"
            )
    return oid


def _cached(repo_id: str, revision: str | None, tier: int) -> Path:
    """What an earlier download left, when the Hub may not be asked."""
    from huggingface_hub import hf_hub_download

    name = _shown(repo_id, revision)
    folder = _retried(
        name,
        lambda: (
            Path(
                hf_hub_download(
                    repo_id, "config.json", revision=revision, endpoint=_endpoint(), local_files_only=True
                )
            ).parent
        ),
    )
    there = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    if not any("/" in file for file in model_files(there, tier)):
        weight_files(folder)  # every shard is there
    return folder


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=_endpoint(), library_name="psyche")


def _endpoint() -> str | None:
    """HF_ENDPOINT as it is now; the library reads it once, when it is imported."""
    return os.environ.get("HF_ENDPOINT") or None


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _tree(repo_id: str, revision: str | None) -> dict[str, Any]:
    from huggingface_hub import RepoFile

    listed = _api().list_repo_tree(repo_id, revision=revision, recursive=True)
    return {file.path: file for file in listed if isinstance(file, RepoFile)}


def _is_as_listed(path: Path, listed: Any) -> bool:
    """Whether a file has the hash that the Hub lists: SHA-256 of large ones, git's of the others."""
    if not path.is_file() or path.stat().st_size != listed.size:
        return False
    if listed.lfs is not None:
        return FileEntry.of_file(path).sha256 == str(listed.lfs.sha256)
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == str(listed.blob_id)


def _entry_matches(entry: FileEntry, listed: Any) -> bool:
    if listed.lfs is not None:
        return bool(listed.lfs.sha256 == entry.sha256)
    return bool(listed.size == entry.num_bytes)


def _check_room(name: str, num_bytes: int) -> None:
    folder = _cache()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise StorageError(
            f"{name} has {num_bytes / 1e9:.2f} GB, {folder} has {free / 1e9:.2f} GB free: free space, or set "
            "HF_HOME to another disk"
        )


def _retried(
    name: str,
    call: Callable[[], T],
    *,
    writes: bool = False,
    passes: tuple[type[Exception], ...] = (),
) -> T:
    """Call; try again after what may pass; name what does not.

    Args:
        passes: errors that the caller handles.
    """
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except passes:
            raise
        except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
            if isinstance(error, CheckpointError):
                raise
            if attempt == ATTEMPTS or not _may_pass(error):
                raise _named(name, error, writes=writes) from error
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            logger.warning("the Hub failed, once more repo=%s attempt=%d reason=%s", name, attempt, reason)
        except Exception as error:
            if not _is_transport(error):
                raise
            if attempt == ATTEMPTS:
                raise _named(name, error, writes=writes) from error
            logger.warning("the Hub cannot be reached, once more repo=%s attempt=%d", name, attempt)
        time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
    raise AssertionError("the last attempt returns or raises")


def _may_pass(error: Exception) -> bool:
    status = _status(error)
    return status in (408, 425, 429) or status >= 500 or (status == 0 and _is_transport(error))


def _status(error: BaseException | None) -> int:
    """Status of the answer that failed, also where the library wrapped it; 0 where there was none."""
    while error is not None:
        response = getattr(error, "response", None)
        if status := int(getattr(response, "status_code", 0) or 0):
            return status
        error = error.__cause__
    return 0


def _is_transport(error: BaseException | None) -> bool:
    """Whether the connection failed, as the HTTP library below huggingface_hub says it (httpx, httpx2)."""
    while error is not None:
        if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
            return True
        error = error.__cause__
    return False


def _named(name: str, error: Exception, *, writes: bool) -> CheckpointError:
    """The error as a sentence with what to do."""
    from huggingface_hub import errors

    token = "set HF_TOKEN, or run `hf auth login`"
    status = _status(error)
    if isinstance(error, OSError) and error.errno is not None and not status:
        with disk(_cache(), f"cannot store {name} in"):
            raise error
    if isinstance(error, errors.OfflineModeIsEnabled) or (
        isinstance(error, errors.LocalEntryNotFoundError)
        and isinstance(error.__cause__, errors.OfflineModeIsEnabled)
    ):
        return CheckpointError(f"{name} cannot be reached: HF_HUB_OFFLINE is set; unset it")
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f"{name} is gated: accept its terms on its page with your account, then {token}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(f"{name}: there is no such revision; name a branch, a tag or a commit")
    if status in (401, 403) and not isinstance(error, errors.RepositoryNotFoundError):
        what = "written" if writes else "read"
        return CheckpointError(f"{name} may not be {what} with this token: {token} with one that may")
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(
            f"{name} is not there, or is private: check the name; if it is private, {token}"
        )
    if isinstance(error, errors.LocalEntryNotFoundError) and not status and not _is_transport(error):
        return CheckpointError(
            f"{name} is not in the cache, and HF_HUB_OFFLINE forbids asking the Hub: unset it once"
        )
    if isinstance(error, errors.HFValidationError):
        return CheckpointError(f"{name} is no name of a repository: {error}")
    if status:
        return StorageError(
            f"{name}: the Hub answered with status {status}, {ATTEMPTS} times if it may pass: try later"
        )
    return StorageError(
        f"{name} cannot be reached: {error or type(error).__name__}; check your network, then try again"
    )


def _shown(repo_id: str, revision: str | None) -> str:
    return f"hub:{repo_id}" + (f"@{revision}" if revision else "")
