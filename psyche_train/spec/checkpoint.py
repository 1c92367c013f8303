"""`[model.LLM.checkpoint]`: where a run's first weights come from."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer, model_validator

from psyche_train.spec.tables import OneOf, Sha256Hex, Table


class InitCheckpoint(Table):
    """Fresh weights from an integer generator: the same bits on every machine.

    HfLlama has keys of its own; HfAuto and NanoGPT have `config` instead, with their own keys in it.
    """

    config: dict[str, JsonValue] | None = None
    """`config.json` of the model, for the architectures HfAuto and NanoGPT."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    hidden_size: int = Field(default=128, ge=8, le=65_536)
    intermediate_size: int = Field(default=512, ge=1, le=1_048_576)
    num_hidden_layers: int = Field(default=4, ge=1, le=512)
    num_attention_heads: int = Field(default=4, ge=1, le=1024)
    num_key_value_heads: int = Field(default=4, ge=1, le=1024)
    vocab_size: int = Field(default=256, ge=2, le=1_048_576)
    rope_theta: float = Field(default=10_000.0, gt=0)
    rms_norm_eps: float = Field(default=1e-5, gt=0, lt=1)
    tie_word_embeddings: bool = True
    initializer_range: float = Field(default=0.02, gt=0, le=1)
    weights_sha256: Sha256Hex = ""
    """Weights hash h_0 of the initial weights; `resolve` fills it in."""

    @model_validator(mode="before")
    @classmethod
    def _one_description(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("config") is not None:
            others = sorted(set(value) & (set(cls.model_fields) - _SHARED))
            if others:
                raise ValueError(
                    f"config describes the whole model: {', '.join(others)} cannot stand beside it"
                )
            try:
                json.dumps(value["config"], allow_nan=False)
            except (TypeError, ValueError, RecursionError) as error:
                raise ValueError(f"config holds a value that is not JSON: {error}") from error
        return value

    @model_serializer(mode="wrap")
    def _one_description_only(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        table: dict[str, Any] = handler(self)
        if self.config is not None:
            return {key: value for key, value in table.items() if key in _SHARED}
        return table

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.config is not None:
            return self
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size = {self.hidden_size} must divide by 2 x num_attention_heads = "
                f"{2 * self.num_attention_heads} (rotary embeddings pair the entries of a head)"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads = {self.num_attention_heads} must divide by "
                f"num_key_value_heads = {self.num_key_value_heads}"
            )
        return self

    @property
    def is_small(self) -> bool:
        """Whether no more than a thousand million parameters follow from the keys of HfLlama."""
        layer = self.hidden_size * (4 * self.hidden_size + 3 * self.intermediate_size + 2)
        embeddings = (2 * self.vocab_size + 1) * self.hidden_size
        return self.num_hidden_layers * layer + embeddings <= 1_000_000_000


_SHARED = {"config", "seed", "weights_sha256"}


class _Stored(Table):
    """What `resolve` fills in for a checkpoint that lies somewhere."""

    weights_sha256: Sha256Hex = ""
    config_sha256: Sha256Hex = ""
    config: dict[str, JsonValue] | None = None
    """The model, so that a member needs nothing but the agreed weights of others; left out where it is long."""


class HubCheckpoint(_Stored):
    """A Hugging Face repository in the transformers layout."""

    repo_id: str = Field(min_length=1, max_length=128)
    revision: str | None = Field(default=None, max_length=64)
    """Branch, tag or commit; `resolve` replaces it by the commit that it names then."""


class LocalCheckpoint(_Stored):
    """A directory in the transformers layout that every member of the first epoch has."""

    path: str = Field(min_length=1, max_length=512)


class UrlCheckpoint(_Stored):
    """A folder of an object store in the transformers layout, through fsspec: `s3://`, `gs://` and others."""

    url: str = Field(min_length=4, max_length=512, pattern=r"^[a-z][a-z0-9+.-]*://\S+$")


StoredCheckpoint = HubCheckpoint | LocalCheckpoint | UrlCheckpoint
"""Kinds whose weights lie somewhere; `weights_sha256` is h_0 of their weights and `config_sha256` the hash of
their full-width `config.json` (what changes nothing left out); `resolve` fills both in."""


class Checkpoint(OneOf):
    """Where the run's first weights come from.

    The original's `Gcs { bucket, prefix }` is read as `Url { url = "gs://bucket/prefix" }`. Its `P2P` is refused: here
    every run goes on from its members once they have agreed on weights, and nobody has those of a new run.
    """

    Init: InitCheckpoint | None = None
    Hub: HubCheckpoint | None = None
    Local: LocalCheckpoint | None = None
    Url: UrlCheckpoint | None = None

    @model_validator(mode="before")
    @classmethod
    def _first_weights_are_somewhere(cls, tables: Any) -> Any:
        kinds = set(tables) if isinstance(tables, dict) else {tables} if isinstance(tables, str) else set()
        if found := kinds & {"P2P", "P2PGcs", "Dummy", "Ephemeral"}:
            raise ValueError(
                f"{found.pop()} names no first weights, and a first epoch cannot start from peers only: nobody has "
                "them yet. Choose Init, Hub, Local or Url; from the first agreed checkpoint on, members that "
                "lack them take the weights from peers by themselves"
            )
        return tables

    @model_validator(mode="before")
    @classmethod
    def _gcs_is_a_url(cls, tables: Any) -> Any:
        if not isinstance(tables, dict) or "Gcs" not in tables:
            return tables
        gcs = tables["Gcs"]
        if not isinstance(gcs, dict) or set(gcs) - {"bucket", "prefix"} or "Url" in tables:
            raise ValueError(
                "Gcs has the keys bucket and prefix; or write Url with url = 'gs://BUCKET/PREFIX'"
            )
        parts = [str(gcs.get(key) or "").strip("/") for key in ("bucket", "prefix")]
        others = {key: value for key, value in tables.items() if key != "Gcs"}
        return {**others, "Url": {"url": "gs://" + "/".join(part for part in parts if part)}}

    @property
    def chosen(self) -> InitCheckpoint | HubCheckpoint | LocalCheckpoint | UrlCheckpoint:
        """The sub-table that is there."""
        chosen: InitCheckpoint | HubCheckpoint | LocalCheckpoint | UrlCheckpoint = getattr(self, self.kind)
        return chosen
