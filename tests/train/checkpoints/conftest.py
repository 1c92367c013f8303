"""Small checkpoints made without a trainer, and the stand-in for the Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from psyche_train.checkpoints import cloud, hub
from psyche_train.checkpoints.files import CONFIG, TOKENIZER_FILES, write_json, write_weights
from psyche_train.checkpoints.manifest import MANIFEST, POSITION, STATE, CheckpointManifest, FileEntry
from psyche_train.checkpoints.tensors import entries_of
from psyche_train.data.tokenizer import save_byte_tokenizer
from tests.train.checkpoints.hub_standin import WRITER, Hub, hub_server

SCHEMA = "ab" * 32

torch.set_num_threads(1)


def save_llama(
    folder: Path, *, tied: bool = False, ffn: int = 64, shard_bytes: int = 10**9, seed: int = 0
) -> Path:
    """Write a small Llama as `transformers` writes it, with a tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=ffn,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 1234.5},
        mlp_bias=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size=shard_bytes)
    save_byte_tokenizer(folder)
    return folder


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, with a token that may write, an empty cache, and no pauses."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    hosts = {"huggingface.co", "hf.co", "127.0.0.1"}  # as if HF_ENDPOINT had been set before the import
    monkeypatch.setattr(huggingface_hub.constants, "HF_URL_HOSTS", frozenset(hosts))
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setattr(hub.time, "sleep", lambda seconds: None)
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow one another at once."""
    monkeypatch.setattr(cloud.time, "sleep", lambda seconds: None)


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a checkpoint directory of two tensors with everything a member's has."""

    def make(name: str = "model", seed: int = 0, *, shard_bytes: int = 10**9, manifest: bool = True) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        weights = {
            "a.weight": torch.randn(64, 48, generator=torch.Generator().manual_seed(seed)),
            "b.weight": torch.randn(32, 16, generator=torch.Generator().manual_seed(seed + 1)),
        }
        files = write_weights(folder, entries_of(weights), weights.__getitem__, shard_bytes=shard_bytes)
        files[CONFIG] = write_json(folder / CONFIG, {"model_type": "llama", "seed": seed})
        (folder / TOKENIZER_FILES[0]).write_text("{}")
        files[TOKENIZER_FILES[0]] = FileEntry.of_file(folder / TOKENIZER_FILES[0])
        if manifest:
            (folder / STATE).write_bytes(b"the member's own")
            files[STATE] = FileEntry.of_file(folder / STATE)
            files[POSITION] = write_json(folder / POSITION, {"step": seed})
            described = CheckpointManifest(
                files=files, schema_sha256=SCHEMA, tier=0, max_tier=0, weights_sha256="cd" * 32
            )
            write_json(folder / MANIFEST, described.to_tables())
        return folder

    return make
