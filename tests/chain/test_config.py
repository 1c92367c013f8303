"""Configuration files: what is read, and what is said of a mistake."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyche_chain.amounts import MAX_AMOUNT, format_amount, parse_amount, to_base_units
from psyche_chain.config import load_config
from psyche_chain.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SMOKE = (ROOT / "config/smoke.toml").read_text()


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.toml")), ids=lambda p: p.stem)
def test_configurations_of_the_repository_are_valid(path: Path) -> None:
    config = load_config(path)
    assert config.warnings == ()
    assert len(config.spec.to_bytes()) <= 10_000


def test_demo_is_what_the_issue_asks_for() -> None:
    config = load_config(ROOT / "config/demo.toml")
    assert config.spec.matformer.max_tier == 1
    assert config.config.total_steps >= 60
    assert config.rewards is not None
    init = config.spec.checkpoint.Init
    assert init is not None
    layer = 4 * init.hidden_size**2 + 3 * init.hidden_size * init.intermediate_size
    assert 0.9e6 < init.num_hidden_layers * layer + init.vocab_size * init.hidden_size < 1.4e6


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "min_clients = 1",
            "min_client = 1",
            r"config\.min_client is not a known key; did you mean min_clients\?",
        ),
        ("total_steps = 8", 'total_steps = "8"', r'config\.total_steps = "8", a whole number is needed'),
        ("total_steps = 8", "total_steps = 8.5", r"config\.total_steps = 8\.5, a whole number is needed"),
        ("total_steps = 8", "total_steps = -1", r"config\.total_steps = -1, it must be at least 1"),
        ("total_steps = 8", "", r"config\.total_steps is missing"),
        (
            "min_clients = 1",
            "min_clients = 3",
            r"config: min_clients = 3, it must be at most init_min_clients = 2",
        ),
        (
            "global_batch_size_end = 4",
            "global_batch_size_end = 3",
            r"global_batch_size_start = 4, it must be at most",
        ),
        ("warmup_time = 20", "warmup_time = 0", r"config\.warmup_time = 0, it must be at least 1"),
        ('run_id = "smoke"', 'run_id = "Smoke!"', r'run_id = "Smoke!", it must match'),
        (
            "round_rate = 1.5",
            "round_rate = 1.0005",
            r"rewards: round_rate: 1\.0005 has more than 3 decimals",
        ),
        ("round_rate = 1.5", "round_rate = -1", r"rewards\.round_rate = -1, it must be at least 0"),
        ("round_rate = 1.5", 'mint = "x"\nround_rate = 1', r'rewards\.mint: "x" is not an address'),
        (
            "base_lr = 2.0e-3",
            "base_lr = 200.0",
            r"model\.LLM\.lr_schedule\.Constant\.base_lr = 200\.0, it must be at most",
        ),
        (
            "[model.LLM.optimizer.Distro]",
            "[model.LLM.optimizer.Lion]",
            r"optimizer\.Lion is not a known key.*Distro",
        ),
        ("hidden_size = 32", "hidden_size = true", r"hidden_size = true, a whole number is needed"),
        ("max_tier = 1", "max_tier = 9", r"matformer\.max_tier = 9, it must be at most 2"),
        ('name = "Smoke"', f'name = "{"x" * 65}"', r"name has 65 bytes, at most 64"),
        ('name = "Smoke"', 'min_client_version = "one"', r'min_client_version = "one"'),
        ('name = "Smoke"', 'min_client_version = "one"', r"toml: min_client_version"),
        ("[config]", "[config", r"not TOML: .*line"),
        ("round_rate = 1.5", 'round_rate = "1"', r'rewards\.round_rate = "1", a number is needed'),
        ("round_rate = 1.5", "round_rate = nan", r"rewards\.round_rate = NaN, a finite number is needed"),
        ("base_lr = 2.0e-3", "base_lr = inf", r"base_lr = Infinity, a finite number is needed"),
        (
            "[model.LLM.optimizer.Distro]",
            "[model.LLM.optimizer.Distro]\nquantize_1bit = false",
            r"quantize_1bit = false, allowed: true",
        ),
    ],
)
def test_mistake_is_one_sentence_with_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SMOKE
    path = write(tmp_path, SMOKE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 3


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bin.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="byte 0 is not UTF-8 text"):
        load_config(tmp_path / "bin.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory \("):
        load_config(tmp_path)


PSYCHE_STATE = """
run_id = "test"
run_state = "WaitingForMembers"
[config]
warmup_time = 5
cooldown_time = 5
epoch_time = 60
max_round_train_time = 5
round_witness_time = 2
min_clients = 2
init_min_clients = 2
global_batch_size_start = 4
global_batch_size_end = 4
global_batch_size_warmup_tokens = 0
verification_percent = 0
witness_nodes = 1
total_steps = 10
waiting_for_members_extra_time = 3

[model.LLM]
max_seq_len = 512
cold_start_warmup_steps = 0
checkpoint_source = "Stored"

[model_extra_data]
version = 1
architecture = "HfLlama"
data_type = "Pretraining"
data_location = "Dummy"

[model_extra_data.checkpoint.Hub]
repo_id = "pefontana/Nano-Llama"

[model_extra_data.lr_schedule.Cosine]
base_lr = 4.0e-4
warmup_steps = 20
warmup_init_lr = 0.0
total_steps = 2000
final_lr = 4.0e-5

[model_extra_data.optimizer.Distro]
clip_grad_norm = 1.0
compression_decay = 0.999
compression_chunk = 64
compression_topk = 8
quantize_1bit = true
"""


def test_state_file_of_psyche_is_read_and_what_is_lost_is_named(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, PSYCHE_STATE))
    text = "\n".join(config.warnings)
    for key in (
        "run_state",
        "config.verification_percent",
        "model.LLM.checkpoint_source",
        "model_extra_data",
    ):
        assert key in text
    assert config.spec.data_location.kind == "Dummy"
    assert config.spec.optimizer.chosen.compression_decay == 0.999
    assert config.config.waiting_for_members_extra_time == 3


def test_run_id_can_come_from_outside(tmp_path: Path) -> None:
    path = write(tmp_path, SMOKE.replace('run_id = "smoke"\n', ""))
    with pytest.raises(ConfigError, match="run_id is missing"):
        load_config(path)
    assert load_config(path, run_id="other").run_id == "other"


def test_pay_per_tier_is_filled_up_with_its_last_value() -> None:
    assert load_config(ROOT / "config/smoke.toml").chain_config().pay_per_tier == (2, 1, 1, 1)


@given(units=st.integers(0, MAX_AMOUNT), decimals=st.integers(0, 9))
def test_amounts_round_trip(units: int, decimals: int) -> None:
    assert parse_amount(format_amount(units, decimals), decimals) == units


@given(text=st.text(max_size=20))
def test_amounts_refuse_anything_else(text: str) -> None:
    try:
        assert 0 <= parse_amount(text, 6) <= MAX_AMOUNT
    except ValueError:
        return


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-1", "1e30", "0.0000001", "1e999999999"])
def test_amounts_that_no_mint_holds(bad: str) -> None:
    with pytest.raises(ValueError, match=r"amount|large|decimals"):
        to_base_units(Decimal(bad), 6)


def test_more_local_steps_than_samples_is_named(tmp_path: Path) -> None:
    text = (ROOT / "config/sparseloco.toml").read_text()
    assert not load_config(write(tmp_path, text)).warnings
    few = text.replace("global_batch_size_start = 96", "global_batch_size_start = 23")
    assert "each of 3 members gets 7" in load_config(write(tmp_path, few)).warnings[0]
