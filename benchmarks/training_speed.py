"""Cost of a member's step: our encoder against DeMo's, a whole round part by part, bytes, memory.

    python -m benchmarks.training_speed                      # everything at 1M, 20M and 124M: some minutes
    python -m benchmarks.training_speed encode --sizes 20M --rounds 15 --threads 1
    python -m benchmarks.training_speed step --sizes 20M --samples 8
    python -m benchmarks.training_speed bytes entropy memory

Everything that is compared is run in turns in one process, so that a busy machine slows all of it alike:
read the ratios. Times are medians with the quartiles in brackets; `cpu` is CPU time of all threads.
`encode` compares on the same gradients; ours includes the error feedback, the selection with its order of
ties, and the packed bytes, DeMo's (`benchmarks/demo_algorithm.py`) ends with indices and values.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.demo_algorithm import DemoEncoder
from psyche_train.bench.bytes import payload_bytes
from psyche_train.bench.models import SIZES, bench_spec, distro_of, random_body
from psyche_train.bench.step import WEIGHTS_HASH, MemberBench
from psyche_train.bench.timing import Part, Timing, interleave
from psyche_train.fold.chunks import grids
from psyche_train.resolve import schema_of
from psyche_train.strategies.distro import DistroState
from psyche_train.strategies.payload import PayloadLayout
from psyche_train.strategies.subsets import subset_coder

KINDS = ("encode", "step", "bytes", "entropy", "memory")


def encode(size: str, *, topk: int, rounds: int, warmup: int = 2) -> dict[str, Any]:
    """Our encoder, error feedback to bytes, against the published one, on the same tensors."""
    spec = bench_spec(size, topk=topk)
    config = distro_of(spec)
    ours_grids = grids(schema_of(spec), 0, config.compression_chunk)
    shapes = {grid.name: grid.shape for grid in ours_grids}
    generator = torch.Generator().manual_seed(1)
    gradients = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    state = DistroState(config, ours_grids, torch.device("cpu"))
    layout = PayloadLayout(ours_grids, topk)
    published = DemoEncoder(shapes, topk=topk, chunk=64, decay=config.compression_decay)

    def ours() -> None:
        layout.encode(state.encode(1, gradients, 0.002))
        state.settle(1, accepted=True)

    parts = {"ours": Part(ours), "published": Part(lambda: published.encode(gradients, 0.002))}
    times = interleave(parts, rounds=rounds, warmup=warmup)
    return {
        "parameters": sum(gradient.numel() for gradient in gradients.values()),
        "times": times,
        "ratio": times["published"].median_s / times["ours"].median_s,
        "cpu_ratio": times["published"].cpu_s / times["ours"].cpu_s,
    }


def step(size: str, *, topk: int, entropy: bool, peers: int, samples: int, rounds: int) -> dict[str, Any]:
    """A whole round of one member."""
    with tempfile.TemporaryDirectory() as folder:
        spec = bench_spec(size, topk=topk, entropy=entropy)
        cost = MemberBench(spec, Path(folder), peers=peers, samples=samples).measure(rounds=rounds)
    return {
        "parameters": cost.parameters,
        "peers": peers,
        "tokens": cost.tokens,
        "blob_bytes": cost.blob_bytes,
        "times": cost.parts,
        "share": cost.share,
        "cpu_share": cost.cpu_share,
    }


def sizes_of(size: str, *, topk: int) -> dict[str, Any]:
    """Bytes of an update per parameter and step."""
    found: dict[str, Any] = {}
    for name, entropy in (("plain", False), ("entropy", True)):
        counted = payload_bytes(bench_spec(size), topk, entropy=entropy)
        found["parameters"] = counted.parameters
        found[name] = counted.per_parameter
        found[f"{name} all tensors"] = counted.body_bytes / counted.parameters
    return found


def coding(size: str, *, topk: int, rounds: int) -> dict[str, Any]:
    """Writing and reading an update, with and without entropy coding."""
    chosen = grids(schema_of(bench_spec(size)), 0, 64)
    body = random_body(chosen, topk, 0)
    parts, lengths = {}, {}
    for name, entropy in (("plain", False), ("entropy", True)):
        layout = PayloadLayout(chosen, topk, entropy)
        data = layout.encode(body)
        lengths[f"{name} bytes"] = len(data)
        parts[f"write {name}"] = Part(lambda layout=layout: layout.encode(body))
        parts[f"read {name}"] = Part(lambda layout=layout, data=data: layout.decode(data, 0))
    tables = sum(table.nbytes for table in subset_coder(4096, topk)._tables)
    return {**lengths, "table_bytes": tables, "times": interleave(parts, rounds=rounds)}


def memory(size: str, *, topk: int) -> dict[str, Any]:
    """What a process holds, per tier; each tier in a process of its own."""
    found: dict[str, Any] = {}
    for tier in range(3):
        command = [sys.executable, "-m", "psyche_train.bench.memory", size, str(tier), "--topk", str(topk)]
        found[f"tier {tier}"] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def show(title: str, found: dict[str, Any]) -> None:
    """Print one result."""
    print(f"\n{title}")
    for name, value in found.items():
        if name == "times":
            for part, timing in value.items():
                print(f"  {part:24}{_timing(timing)}")
        elif isinstance(value, dict):
            print(
                f"  {name:24}" + ", ".join(f"{key} {number / 2**20:.1f} MiB" for key, number in value.items())
            )
        else:
            print(f"  {name:24}{value:.5f}" if isinstance(value, float) else f"  {name:24}{value:,}")
    sys.stdout.flush()


def _timing(timing: Timing) -> str:
    low, high = 1e3 * timing.low_s, 1e3 * timing.high_s
    return f"{1e3 * timing.median_s:10.1f} ms [{low:.1f}, {high:.1f}], cpu {1e3 * timing.cpu_s:.1f} ms"


def main(argv: list[str] | None = None) -> None:
    """Run what was asked for."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--sizes", default="1M,20M,124M", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--topk", type=int, default=4, help="coefficients kept of 4096")
    parser.add_argument("--peers", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8, help="windows that the member trains in a round")
    parser.add_argument("--entropy", action="store_true", help="for step: entropy-coded updates")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(argv)
    if wrong := [kind for kind in arguments.kinds if kind not in KINDS]:
        parser.error(f"{wrong[0]!r}: choose of {', '.join(KINDS)}")
    torch.set_num_threads(arguments.threads)
    topk, rounds = arguments.topk, arguments.rounds
    print(f"torch {torch.__version__}, {arguments.threads} threads, k = {topk} of 4096")
    for size in arguments.sizes.split(","):
        for kind in arguments.kinds:
            title = f"{kind}, {size}"
            match kind:
                case "encode":
                    show(title, encode(size, topk=topk, rounds=rounds))
                case "step":
                    fixed = {"peers": arguments.peers, "samples": arguments.samples, "rounds": rounds}
                    show(
                        f"{title} (without '{WEIGHTS_HASH}', which is not of every round, in the shares)",
                        step(size, topk=topk, entropy=arguments.entropy, **fixed),
                    )
                case "bytes":
                    show(title, sizes_of(size, topk=topk))
                case "entropy":
                    show(title, coding(size, topk=topk, rounds=rounds))
                case "memory":
                    show(title, memory(size, topk=topk))


if __name__ == "__main__":
    main()
