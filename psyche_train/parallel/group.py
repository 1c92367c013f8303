"""The ranks' collective operations: Gloo on the CPU, NCCL on CUDA.

RankError (TrainerLost): a rank died, hung or could not be started; the member must be started again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from psyche_train.jobs import TrainerLost


class RankError(TrainerLost):
    """A rank died, hung or could not be started."""


class RankGroup:
    """One rank's end of the group. Every operation must be called by all ranks, in the same order.

    No global state of `torch.distributed` is used, so several groups may live in one process.

    Args:
        meeting: a file that the ranks find one another through; not there yet.
        timeout_s: after which an operation that a rank does not take part in fails.
    """

    def __init__(self, meeting: Path, rank: int, ranks: int, device: torch.device, timeout_s: float) -> None:
        self.rank, self.ranks, self.device = rank, ranks, device
        store = torch._C._distributed_c10d.FileStore(str(meeting), ranks)
        limit = timedelta(seconds=timeout_s)
        self._group: Any
        if device.type == "cuda":
            nccl = dist.ProcessGroupNCCL.Options()
            nccl._timeout = limit
            torch.cuda.set_device(device)
            self._group = dist.ProcessGroupNCCL(store, rank, ranks, nccl)
        else:
            gloo = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
            gloo._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
            gloo._timeout = limit
            self._group = dist.ProcessGroupGloo(store, rank, ranks, gloo)

    def total(self, *values: float) -> list[float]:
        """The sums of every rank's numbers, the same bits on every rank."""
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        options = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.SUM
        self._group.allreduce([numbers], options).wait()
        return [float(number) for number in numbers]

    def reduce(self, tensor: Tensor, owner: int) -> None:
        """Sum a tensor of every rank into the owner's, in place; the others' is worthless afterwards."""
        options = dist.ReduceOptions()
        options.reduceOp = dist.ReduceOp.SUM
        options.rootRank = owner
        self._group.reduce([tensor], options).wait()

    def spread(self, tensors: Iterable[tuple[Tensor, int]]) -> None:
        """Overwrite each tensor by its owner's, bit for bit."""
        works = []
        for tensor, owner in tensors:
            options = dist.BroadcastOptions()
            options.rootRank = owner
            works.append(self._group.broadcast([tensor.detach()], options))
        for work in works:
            work.wait()

    def abort(self) -> None:
        """Give up whatever operation is under way; the group is of no use afterwards."""
        if self.device.type == "cuda":
            self._group.abort()
