"""Train one row with one seed, and check that what was measured was really exchanged."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.learning.rows import Row, Scale, spec_of
from psyche_train.data.dataset import Dataset
from psyche_train.local_run import LocalRun
from psyche_train.trainer import Trainer

Result = dict[str, Any]


class NotTrained(AssertionError):
    """A run whose figures would mean nothing: nothing was exchanged, or members hold different weights."""


def train_row(
    row: Row, scale: Scale, seed: int, *, watch: Callable[[LocalRun], None] | None = None
) -> Result:
    """Train a row with one seed; returns what the report needs, in JSON's types.

    The order of the samples depends on the seed alone, so rows with one seed see the same text.

    Args:
        watch: called after every round, for tests.

    Raises:
        NotTrained: an update was empty or copied, a fold changed nothing, or members' weights differ.
    """
    torch.set_num_threads(1)
    spec = spec_of(row, scale, seed).resolve()
    data = Dataset(spec, 256, order=hashlib.sha256(b"order %d" % seed).digest())
    started, busy = time.monotonic(), time.process_time()
    curve: list[dict[str, Any]] = []
    sizes: list[int] = []
    folded = b""
    with tempfile.TemporaryDirectory() as folder:
        run = LocalRun(
            spec, row.tiers, Path(folder), samples=round(scale.samples * row.share),
            pipelined=row.pipelined, threads=1,
        )  # fmt: skip
        for member in run.members:
            member.data = data
        marks = {scale.rounds * (i + 1) // scale.evaluations for i in range(scale.evaluations)}
        for done, progress in enumerate(run.train(scale.rounds), start=1):
            if watch is not None:
                watch(run)
            check_updates(run.log[-1][1])
            sizes.extend(progress.payload_bytes)
            if done == scale.rounds:
                run.drain()
            if done > 1 or not row.pipelined:
                before, folded = folded, run.members[0].weights_hash()
                if folded == before:
                    raise NotTrained(f"{row.name}: round {done} changed no weight")
            for _, blobs in run.log[:-1]:  # they are folded; a dense baseline's would fill the memory
                blobs.clear()
            if done in marks:
                check_equal(run.members)
                losses = {str(member.tier): member.validation_loss() for member in _one_of_each(run.members)}
                curve.append({"round": done, "loss": losses, "train": sum(progress.losses) / len(row.tiers)})
        parameters = {str(member.tier): member.parameters for member in run.members}
    return {
        "name": row.name,
        "seed": seed,
        "loss": curve[-1]["loss"],
        "curve": curve,
        "parameters": parameters,
        "tokens": scale.rounds * round(scale.samples * row.share) * scale.max_seq_len,
        "bytes_per_parameter": sum(sizes) / scale.rounds / sum(member.parameters for member in run.members),
        "cpu_seconds": round(time.process_time() - busy, 1),
        "seconds": round(time.monotonic() - started, 1),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
    }


def check_updates(blobs: dict[int, bytes]) -> None:
    """Refuse updates that are empty, or the same from two members."""
    if any(len(blob) == 0 for blob in blobs.values()):
        raise NotTrained("a member sent an empty update")
    if len(set(blobs.values())) < len(blobs):
        raise NotTrained("two members sent the same update")


def check_equal(members: Sequence[Trainer]) -> None:
    """Refuse members whose weights differ in a bit, each on the part that both hold."""
    digests = [member.digests() for member in members]
    full = max(digests, key=len)
    for member, own in zip(members, digests, strict=True):
        if own != full[: len(own)]:
            raise NotTrained(f"a member of tier {member.tier} holds other weights than the rest")


def _one_of_each(members: Sequence[Trainer]) -> list[Trainer]:
    return list({member.tier: member for member in members}.values())
