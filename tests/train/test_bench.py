"""The benchmarks at a tiny size: they run, and what they compare does the same work."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import typer

from benchmarks import training_speed
from benchmarks.demo_algorithm import DemoEncoder
from psyche_train.bench.bytes import payload_bytes
from psyche_train.bench.memory import main as memory_main
from psyche_train.bench.memory import memory
from psyche_train.bench.models import bench_spec, distro_of, random_body
from psyche_train.bench.step import TRAINING, WEIGHTS_HASH, MemberBench
from psyche_train.bench.timing import Part, interleave
from psyche_train.cli import bench as bench_cli
from psyche_train.cli.failures import translate
from psyche_train.cli.shell import run_app
from psyche_train.fold.chunks import grids
from psyche_train.resolve import schema_of
from psyche_train.strategies.distro import DistroState


def test_ours_and_the_published_encoder_send_the_same_coefficients_and_keep_the_same_error():
    spec = bench_spec("tiny")
    config = distro_of(spec)
    ours = grids(schema_of(spec), 0, config.compression_chunk)
    shapes = {grid.name: grid.shape for grid in ours}
    # Chunks of MatFormer tensors follow the smallest tier: leave tensors out that DeMo would cut otherwise.
    state = DistroState(config, ours, torch.device("cpu"))
    published = DemoEncoder(shapes, topk=config.compression_topk, chunk=64, decay=config.compression_decay)
    compared = 0
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        gradients = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        sent = published.encode(gradients, 0.01)
        mine = dict(zip(shapes, state.encode(step + 1, gradients, 0.01), strict=True))
        for grid in ours:
            h, w = grid.chunk_rows, grid.chunk_columns
            edges = [published.split[size] for size in grid.shape]
            if edges != [h, w][: len(edges)]:
                continue
            compared += 1
            index, value = (part.reshape(grid.num_chunks, -1) for part in sent[grid.name])
            order = index.argsort(dim=1)
            keys = index.gather(1, order) + torch.arange(grid.num_chunks)[:, None] * grid.area
            assert mine[grid.name].keys.tolist() == keys.flatten().tolist()
            assert mine[grid.name].signs.tolist() == value.gather(1, order).sign().flatten().tolist()
            left = state.residual()[grid.name]
            assert torch.allclose(left, published.delta[grid.name], atol=1e-5)
    assert compared >= 3 * 10


def test_random_body_has_k_different_coefficients_in_every_chunk():
    chosen = grids(schema_of(bench_spec("tiny")), 0, 64)
    for grid, signs in zip(chosen, random_body(chosen, 4, 0), strict=True):
        assert np.bincount(signs.keys // grid.area).tolist() == [4] * grid.num_chunks
        assert (np.diff(signs.keys) > 0).all()


def test_interleave_runs_every_part_in_every_round_after_its_preparation():
    seen = []
    parts = {
        name: Part(lambda n=name: seen.append(n), lambda n=name: seen.append(n.upper())) for name in "ab"
    }
    times = interleave(parts, rounds=2, warmup=1)
    assert seen == ["A", "a", "B", "b"] * 3
    assert all(timing.low_s <= timing.median_s <= timing.high_s for timing in times.values())


def test_step_bench_measures_every_part_of_a_round_and_trains(tmp_path):
    bench = MemberBench(bench_spec("tiny"), tmp_path, peers=3, samples=2)
    before = bench.trainer.weights_hash()
    cost = bench.measure(rounds=2)
    assert bench.trainer.weights_hash() != before
    assert bench.trainer.position.step == 3
    assert set(cost.parts) >= {TRAINING, WEIGHTS_HASH, "encode", "write", "check as a witness", "fold"}
    assert (cost.peers, cost.tokens) == (3, 32)
    assert 0 < cost.share < 1
    assert cost.blob_bytes == max(map(len, bench.blobs.values()))


def test_a_slice_is_measured_with_updates_of_full_members(tmp_path):
    bench = MemberBench(bench_spec("tiny"), tmp_path, tier=2, peers=2, samples=1)
    bench.measure(rounds=1)
    assert bench.trainer.parameters < schema_of(bench.spec).num_parameters(0)
    assert len(bench.write()) < len(bench.blobs[0])


def bench_command(*arguments: str) -> int:
    app = typer.Typer()
    bench_cli.register(app)
    app.command("other")(lambda: None)
    return run_app(app, ["bench", *arguments], translate)


def test_bench_command_shows_a_table_and_json(capsys):
    assert (
        bench_command("--size", "tiny", "--peers", "2", "--samples", "1", "--rounds", "1", "--threads", "1")
        == 0
    )
    shown = capsys.readouterr().out
    assert "check as a witness" in shown
    assert "2 updates of" in shown
    options = ("--peers", "1", "--samples", "1", "--rounds", "1", "--threads", "1", "--json")
    assert bench_command("--size", "tiny", "--entropy", *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] > 0
    assert 0 < found["share"] < 1
    assert found["parts"]["fold"]["median_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--size", "9M"), "none of"),
        (("--size", "tiny", "--tier", "3"), "tiers 0 to 2"),
        (("--size", "tiny", "--entropy", "--topk", "65"), "lower --topk"),
        (("--size", "tiny", "--set", "max_seq_len=8"), "name the file"),
    ],
)
def test_bench_command_refuses_what_it_cannot_measure(capsys, arguments, words):
    assert bench_command(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err


@pytest.mark.parametrize("size", ["1M", "20M"])
def test_bytes_per_parameter_reach_the_goals(size):
    spec = bench_spec(size)
    assert payload_bytes(spec, 4, entropy=False).per_parameter <= 0.00160
    assert payload_bytes(spec, 4, entropy=True).per_parameter <= 0.00147


def test_every_kind_of_benchmark_prints_its_figures(capsys, monkeypatch):
    def run(command, **options):
        del options
        found = memory(command[3], int(command[4]))
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps(found).encode())

    monkeypatch.setattr(subprocess, "run", run)
    threads = torch.get_num_threads()
    try:
        training_speed.main(
            ["--sizes", "tiny", "--rounds", "2", "--peers", "2", "--samples", "2", "--threads", "1"]
        )
    finally:
        torch.set_num_threads(threads)
    shown = capsys.readouterr().out
    for word in (
        "ratio",
        "share",
        "blob_bytes",
        "entropy all tensors",
        "table_bytes",
        "tier 2",
        "peak of a step",
    ):
        assert word in shown


def test_memory_of_a_smaller_tier_is_smaller():
    full, quarter = (memory("tiny", tier) for tier in (0, 2))
    for part in ("weights", "error buffer", "gradient"):
        assert 0 < quarter[part] < full[part]


def test_memory_command_prints_json_and_refuses_other_sizes(capsys, monkeypatch):
    threads = torch.get_num_threads()
    try:
        monkeypatch.setattr(sys, "argv", ["memory", "tiny", "1"])
        memory_main()
        assert json.loads(capsys.readouterr().out)["weights"] > 0
        monkeypatch.setattr(sys, "argv", ["memory", "nothing", "0"])
        with pytest.raises(SystemExit):
            memory_main()
    finally:
        torch.set_num_threads(threads)
    assert "invalid choice" in capsys.readouterr().err
