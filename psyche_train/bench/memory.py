"""Memory of one tier, measured in a process of its own: `python -m psyche_train.bench.memory 20M 1`."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path

import torch

from psyche_train.bench.models import SIZES, bench_spec
from psyche_train.bench.step import RUN
from psyche_train.jobs import TrainJob
from psyche_train.trainer import Trainer


def memory(size: str, tier: int, *, topk: int = 4, samples: int = 1, threads: int = 1) -> dict[str, int]:
    """Bytes of what a tier holds, and how far a first load and a step push the process above an idle one.

    Returns:
        weights, error buffer, gradient: tensors. optimizer: other state of the strategy (none). "peak of the load"
        and "peak of a step": resident memory above that before the trainer was made; 0 where the system does
        not say.
    """
    torch.set_num_threads(threads)
    spec = bench_spec(size, topk=topk)
    with tempfile.TemporaryDirectory() as folder:
        before = _resident()
        trainer = Trainer(spec, tier=tier, run=RUN, state_dir=Path(folder), device="cpu")
        trainer.reset()
        loaded = _peak()
        _forget_peak()
        trainer.train(TrainJob(1, 1, 0, 0, tier, [range(samples)]))
        stepped = _peak()
        state = trainer.training.tensors()
    buffers = sum(tensor.nbytes for name, tensor in state.items() if name.startswith("transformed/"))
    weights = 4 * trainer.parameters
    return {
        "weights": weights,
        "error buffer": buffers,
        "optimizer": 0,
        "gradient": weights,
        "sent, not decided": sum(tensor.nbytes for tensor in state.values()) - buffers,
        "peak of the load": max(0, loaded - before),
        "peak of a step": max(0, stepped - before),
    }


def _status(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def _resident() -> int:
    return _status("VmRSS:")


def _peak() -> int:
    """The highest resident memory since the start or `_forget_peak`."""
    scale = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=list(SIZES))
    parser.add_argument("tier", type=int)
    parser.add_argument("--topk", type=int, default=4)
    parser.add_argument("--samples", type=int, default=1)
    arguments = parser.parse_args()
    print(json.dumps(memory(arguments.size, arguments.tier, topk=arguments.topk, samples=arguments.samples)))


if __name__ == "__main__":
    main()
