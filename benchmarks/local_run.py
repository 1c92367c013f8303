"""Train a config's `[model.LLM]` with several members in one process; print validation loss per tier.

python benchmarks/local_run.py config/demo.toml --tiers 0,1,1 --steps 120 --samples 24
python benchmarks/local_run.py config/demo.toml --set lr_schedule.Cosine.base_lr=0.003
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import torch

from psyche_train.local_run import LocalRun
from psyche_train.spec import TrainSpec


def main() -> None:
    """Run it."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("config", type=Path)
    parser.add_argument("--tiers", default="0,1,1")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=20, help="steps between validations")
    parser.add_argument("--set", action="append", default=[], help="dotted.key=JSON value of [model.LLM]")
    arguments = parser.parse_args()
    tables: Any = tomllib.loads(arguments.config.read_text())
    tables = tables["model"]["LLM"]
    for change in arguments.set:
        key, value = change.split("=", 1)
        *path, last = key.split(".")
        table = tables
        for part in path:
            table = table.setdefault(part, {})
        table[last] = json.loads(value)
    torch.set_num_threads(arguments.threads)
    spec = TrainSpec.model_validate(tables).resolve()
    with tempfile.TemporaryDirectory() as folder:
        tiers = [int(tier) for tier in arguments.tiers.split(",")]
        run = LocalRun(spec, tiers, Path(folder), samples=arguments.samples, threads=arguments.threads)
        print("parameters", [member.parameters for member in run.members], "lr", spec.learning_rate(0))
        first = {tier: run.members[tiers.index(tier)].validation_loss() for tier in sorted(set(tiers))}
        print("start", {tier: round(loss, 3) for tier, loss in first.items()}, flush=True)
        started, busy = time.monotonic(), time.process_time()
        for progress in run.train(arguments.steps):
            if (progress.step + 1) % arguments.every == 0 or progress.step + 1 == arguments.steps:
                if progress.step + 1 == arguments.steps:
                    run.drain()
                losses = {tier: run.members[tiers.index(tier)].validation_loss() for tier in first}
                print(
                    f"step {progress.step + 1}: val",
                    {tier: round(loss, 3) for tier, loss in losses.items()},
                    "train",
                    [round(loss, 2) for loss in progress.losses],
                    "bytes",
                    progress.payload_bytes,
                    f"{(time.monotonic() - started) / (progress.step + 1):.2f} s/step,",
                    f"{(time.process_time() - busy) / (progress.step + 1):.2f} cpu s/step",
                    flush=True,
                )
        h_1 = {member.digests()[0].hex()[:16] for member in run.members}
        assert len(h_1) == 1, "members' weights differ"
        assert all(size > 0 for size in progress.payload_bytes)


if __name__ == "__main__":
    main()
