"""Memory of a tier: computed, measured, shown; a slice is loaded without the rest of the checkpoint."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from psyche_train.cli.main import main
from psyche_train.local_run import RUN, LocalRun
from psyche_train.matformer import memory as memory_module
from psyche_train.matformer.box import StartupInfo, rows, startup_box
from psyche_train.matformer.memory import expected, fitting_tier, free_bytes, measured, num_bytes, shortage
from psyche_train.matformer.slice import cut_checkpoint
from psyche_train.models.initial import initial_weights
from psyche_train.resolve import schema_of
from psyche_train.trainer import Trainer

OPTIMIZERS = {
    "Distro": {"Distro": {"compression_chunk": 16, "compression_topk": 4}},
    "SparseLoCo": {"SparseLoCo": {"compression_chunk": 16, "outer_momentum": 0.9, "local_steps": 2}},
    "AdamW": {"AdamW": {}},
}
HELPER = {"max_tier": 2, "helper_fraction": 0.5}


def trainer(spec, folder: Path, tier: int, **options) -> Trainer:
    member = Trainer(spec, tier=tier, run=RUN, state_dir=folder, device="cpu", **options)
    member.load()
    return member


@pytest.fixture
def wide(make_spec):
    """Return a function that makes specifications whose parameters are nearly all feed-forward."""

    def make(**changes):
        init = {"seed": 1, "hidden_size": 32, "intermediate_size": 1024, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 160}
        return make_spec(checkpoint={"Init": {**init, **heads}}, **changes)

    return make


@pytest.mark.parametrize("matformer", [{"max_tier": 2}, HELPER], ids=["slices", "helpers"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_real_tensors_are_what_was_computed(wide, tmp_path, kind, matformer):
    matformer = {**matformer} if kind != "AdamW" or "helper_fraction" not in matformer else {**HELPER}
    spec = wide(optimizer=OPTIMIZERS[kind], matformer=matformer)
    for tier in (0, 1, 2):
        member = trainer(spec, tmp_path / str(tier), tier)
        assert member.source.memory == expected(spec, member.schema, tier)


def test_a_tier_keeps_only_its_slice_of_everything(wide, tmp_path):
    spec = wide(optimizer=OPTIMIZERS["SparseLoCo"])
    schema = schema_of(spec)
    sizes = [schema.num_parameters(tier) for tier in (0, 1, 2)]
    assert sizes[2] < 0.35 * sizes[0]
    for tier in (0, 1, 2):
        member = trainer(spec, tmp_path / str(tier), tier)
        found = member.source.memory
        assert (found.weights, found.own, found.folded) == (
            4 * sizes[tier],
            12 * sizes[tier],
            4 * sizes[tier],
        )


def test_what_was_sent_and_is_not_decided_is_counted(spec, tmp_path):
    run = LocalRun(spec, (1,), tmp_path, samples=4)
    member = run.members[0]

    def own() -> int:
        return measured(member.held.loaded(), member.training, member.parameters).own

    before = own()
    list(run.train(1))
    assert own() > before
    run.drain()
    assert own() == before


def test_initial_weights_drawn_in_slabs_are_the_same(spec, monkeypatch):
    schema = schema_of(spec)
    whole = initial_weights(schema, 7, 1)
    monkeypatch.setattr("psyche_train.models.initial._SLAB_VALUES", 1001)
    parts = initial_weights(schema, 7, 1)
    assert max(tensor.numel() for tensor in whole.values()) > 5 * 1001
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


def test_memory_shared_by_two_tensors_counts_once():
    tensor = torch.zeros(1000)
    assert num_bytes([tensor, tensor.view(10, 100), tensor[:3]]) == 4000
    assert num_bytes([tensor, torch.zeros(5)]) == 4020


def test_too_little_memory_names_the_tier_that_fits(wide, monkeypatch):
    spec = wide()
    schema = schema_of(spec)
    needed = [expected(spec, schema, tier).total for tier in (0, 1, 2)]
    assert needed[0] > needed[1] > needed[2]
    assert fitting_tier(spec, schema, 0, needed[1]) == 1
    assert fitting_tier(spec, schema, 0, needed[1] - 1) == 2
    assert fitting_tier(spec, schema, 0, needed[2] - 1) is None
    for free, words in ((needed[1], "use --tier 1"), (needed[2] - 1, "no smaller tier")):
        monkeypatch.setattr(memory_module, "free_bytes", lambda device, free=free: free)
        assert words in shortage(spec, schema, 0, torch.device("cpu"))
    monkeypatch.setattr(memory_module, "free_bytes", lambda device: needed[0])
    assert shortage(spec, schema, 0, torch.device("cpu")) is None
    monkeypatch.setattr(memory_module, "free_bytes", lambda device: None)
    assert shortage(spec, schema, 0, torch.device("cpu")) is None


def test_joining_with_a_tier_that_does_not_fit_is_refused_before_anything_is_made(
    wide, tmp_path, monkeypatch
):
    from psyche_chain.client.model import load_trainer
    from psyche_chain.errors import ConfigError

    spec = wide()
    needed = expected(spec, schema_of(spec), 1).total
    monkeypatch.setattr(memory_module, "free_bytes", lambda device: needed)
    options = {"run": RUN, "state_dir": tmp_path / "state", "device": "cpu", "threads": None}
    with pytest.raises(ConfigError, match=r"too little memory.*use --tier 1"):
        load_trainer(spec, tier=0, **options)
    assert not (tmp_path / "state").exists()
    assert load_trainer(spec, tier=1, **options).parameters == schema_of(spec).num_parameters(1)


def test_free_memory_is_a_sensible_number():
    free = free_bytes(torch.device("cpu"))
    assert free is None or 0 <= free < 1 << 50


def shown(info: StartupInfo) -> str:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(startup_box(info))
    return console.export_text()


def test_box_shows_memory_device_and_helper_state(wide, tmp_path):
    text = shown(trainer(wide(matformer=HELPER), tmp_path, 1).source)
    for part in (
        "on: 16 of 32 blocks of 16 neurons outside the slice, others every epoch",
        "768 / 1024 (75.0 %)",
        "x 1.33333",
        "helper mode keeps the full model",
        "cpu",
        "MiB",
        "buffers",
        "gradient",
    ):
        assert part in text
    by_rounds = wide(matformer={**HELPER, "helper_rotation_rounds": 8})
    assert "others every 8 rounds" in shown(trainer(by_rounds, tmp_path / "b", 2).source)
    assert "off for tier 0" in shown(trainer(by_rounds, tmp_path / "c", 0).source)


def test_box_warns_of_little_memory_and_of_another_tier(wide, monkeypatch):
    spec = wide()
    schema = schema_of(spec)
    needed = expected(spec, schema, 1).total
    monkeypatch.setattr("psyche_train.matformer.box.free_bytes", lambda device: needed)
    info = StartupInfo.of(spec, schema, 0, "auto")
    assert "leave, and join with --tier 1" in shown(info)
    assert "less memory" not in shown(StartupInfo.of(spec, schema, 1, "auto"))
    other = dict(rows(replace(info, asked_tier=1)))
    assert "✗" in other["effective tier"]
    assert "auto: no GPU" in dict(rows(info))["device"]


def test_box_warns_of_a_tier_that_was_inferred(spec, make_spec, tmp_path):
    full = trainer(spec, tmp_path / "a", 0).save()
    start, cut = tmp_path / "start", tmp_path / "start" / "tier1"
    shutil.copytree(full, start)
    cut_checkpoint(start, start, [1])
    local = make_spec(checkpoint={"Local": {"path": str(start)}}).resolve()
    assert "was taken for" not in shown(trainer(local, tmp_path / "c", 1).source)
    tables = json.loads((cut / "config.json").read_text())
    del tables["matformer_tier"]
    raw = json.dumps(tables).encode()
    (cut / "config.json").write_bytes(raw)
    manifest = json.loads((cut / "manifest.json").read_text())
    manifest["files"]["config.json"] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (cut / "manifest.json").write_text(json.dumps(manifest))
    member = trainer(local, tmp_path / "d", 1)
    assert "was taken for tier 1 from its width" in shown(member.source)
    member.restore(full, member.position)
    assert "was taken for" not in shown(member.source)


def test_command_prints_a_row_for_every_tier(tmp_path, capsys):
    config = Path(__file__).parents[2] / "config" / "smoke.toml"
    assert main(["memory", str(config), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["tier"] for row in found] == list(range(len(found)))
    assert all(row["total_bytes"] > row["weights_bytes"] > 0 for row in found)
    assert main(["memory", str(config)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(found) + 1


CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from psyche_train.local_run import RUN
from psyche_train.spec import TrainSpec
from psyche_train.trainer import Trainer

def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) << 10

spec = TrainSpec.from_bytes(Path(sys.argv[1]).read_bytes())
member = Trainer(spec, tier=int(sys.argv[2]), run=RUN, state_dir=Path(sys.argv[3]), device="cpu", threads=1)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
member.load()
print(status("VmHWM") - before, member.source.memory.total - member.source.memory.gradient)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("kind", "copies"), [("Init", 2), ("Local", 1)])
def test_peak_memory_of_loading_a_slice_is_bounded_by_the_slice(make_spec, tmp_path, kind, copies):
    """34 MiB of a model of 124: fresh weights are there twice for a moment, stored ones never.

    The error buffers are made before. 0.8 of a slice is left for one tensor and for libraries; one copy more of the
    slice, or anything of the full model, is beyond it.
    """
    init = {"hidden_size": 256, "intermediate_size": 8192, "num_hidden_layers": 5, "num_attention_heads": 4}
    changes = {"checkpoint": {"Init": {**init, "num_key_value_heads": 2, "vocab_size": 160}}}
    spec = make_spec(**changes, optimizer={"Distro": {}})
    if kind == "Local":
        path = trainer(spec, tmp_path / "full", 0).save()
        spec = make_spec(checkpoint={"Local": {"path": str(path)}}, optimizer={"Distro": {}})
    schema = schema_of(spec)
    full, part = 4 * schema.num_parameters(0), 4 * schema.num_parameters(2)
    assert part < 0.3 * full
    (tmp_path / "spec").write_bytes(spec.to_bytes())
    command = [sys.executable, "-c", CHILD, str(tmp_path / "spec"), "2", str(tmp_path / "state")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, kept = map(int, run.stdout.split())
    sizes = {"peak": peak, "kept": kept, "slice": part, "full": full}
    print(kind, {name: f"{size / 2**20:.1f} MiB" for name, size in sizes.items()})
    assert kept == 2 * part
    assert 0.9 * part < peak < (copies + 0.8) * part < full
