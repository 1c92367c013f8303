"""`bench`: what a round costs on this machine."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from psyche_train.cli import exit_codes, output
from psyche_train.cli.options import DeviceOpt, JsonOpt, SetOpt, ThreadsOpt, check_device
from psyche_train.cli.shell import add_commands
from psyche_train.errors import PsycheError

if TYPE_CHECKING:
    from psyche_train.bench.step import StepCost
    from psyche_train.spec import TrainSpec


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add_commands(app, ("bench", bench, "bench --size 20M --peers 8"))


def bench(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="Measure this run's model; else one of --size.")
    ] = None,
    size: Annotated[
        str, typer.Option("--size", help="1M, 20M or 124M parameters, shaped as a Llama.")
    ] = "1M",
    tier: Annotated[int, typer.Option("--tier", min=0, help="The slice that this machine would train.")] = 0,
    peers: Annotated[int, typer.Option("--peers", min=1, max=256, help="Updates folded per round.")] = 8,
    samples: Annotated[
        int, typer.Option("--samples", min=1, max=65536, help="Samples that the member trains in a round.")
    ] = 8,
    topk: Annotated[
        int, typer.Option("--topk", min=1, max=4096, help="Coefficients kept of 4096, with --size.")
    ] = 4,
    entropy: Annotated[bool, typer.Option("--entropy", help="Entropy-coded updates, with --size.")] = False,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds that are measured.")] = 5,
    device: DeviceOpt = "auto",
    threads: ThreadsOpt = None,
    set_: SetOpt = None,
    json: JsonOpt = False,
) -> None:
    """Measure a member's round part by part: forward and backward, encode, check, fold, hashes.

    Medians of several rounds, quartiles, CPU time of all threads, and the share of everything that is not
    forward and backward. Nothing leaves this machine and nothing is kept.
    """
    check_device(device)
    import torch

    from psyche_train.bench.step import MemberBench

    spec = _sized(size, topk, entropy, set_) if config is None else _configured(config, set_)
    if tier > spec.matformer.max_tier:
        raise PsycheError(
            f"--tier {tier}: this model has tiers 0 to {spec.matformer.max_tier}", exit_code=exit_codes.USAGE
        )
    if threads is not None:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="psyche-bench-") as folder:
        member = MemberBench(spec, Path(folder), tier=tier, peers=peers, samples=samples, device=device)
        cost = member.measure(rounds=rounds)
    if json:
        about = {"device": str(member.trainer.device), "threads": torch.get_num_threads()}
        output.data_json(about | asdict(cost) | {"share": cost.share, "cpu_share": cost.cpu_share})
    else:
        _show(cost)


def _sized(size: str, topk: int, entropy: bool, changes: list[str] | None) -> TrainSpec:
    from psyche_train.bench.models import SIZES, bench_spec
    from psyche_train.spec.optimizer import MAX_ENTROPY_TOPK

    if size not in SIZES:
        raise PsycheError(f"--size: {size!r} is none of {', '.join(SIZES)}", exit_code=exit_codes.USAGE)
    if changes:
        raise PsycheError("--set changes a run's file, and none is given", "name the file", exit_codes.USAGE)
    if entropy and topk > MAX_ENTROPY_TOPK:
        raise PsycheError(
            f"--entropy codes at most {MAX_ENTROPY_TOPK} coefficients of a chunk, --topk says {topk}",
            "lower --topk",
            exit_codes.USAGE,
        )
    return bench_spec(size, topk=topk, entropy=entropy)


def _configured(config: Path, changes: list[str] | None) -> TrainSpec:
    from psyche_train.run_file import load_run_file

    run_file, warnings = load_run_file(config, changes or ())
    for warning in warnings:
        output.warn(warning)
    if run_file.spec.optimizer.Distro is None:
        raise PsycheError(
            f"{config} trains by {run_file.spec.optimizer.kind}; only DisTrO is measured part by part",
            exit_code=exit_codes.USAGE,
        )
    return run_file.spec.resolve()


def _show(cost: StepCost) -> None:
    rows = [
        (
            name,
            f"{1e3 * part.median_s:.1f}",
            f"{1e3 * part.low_s:.1f} to {1e3 * part.high_s:.1f}",
            f"{1e3 * part.cpu_s:.1f}",
        )
        for name, part in cost.parts.items()
    ]
    for line in output.table(["part of a round", "ms", "middle half", "CPU ms"], rows):
        output.data(line)
    output.data(
        f"{cost.parameters:,} parameters, {cost.tokens:,} tokens, {output.plural(cost.peers, 'update')} of "
        f"{cost.blob_bytes:,} bytes: {100 * cost.share:.1f} % of the time is not forward and backward, "
        f"{100 * cost.cpu_share:.1f} % of the CPU time"
    )
