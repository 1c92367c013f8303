"""A run whose updates would not fit into a blob is refused while it is made, with the key to change."""

from __future__ import annotations

import pytest

from psyche_train.resolve import schema_of
from psyche_train.spec import SpecError, TrainSpec
from psyche_train.strategies import size
from psyche_train.strategies.size import check_update_size, largest_update
from tests.train.strategies.cases import OPTIMIZERS, make_spec, member

LARGE = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 6,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 256,
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_longest_update_is_the_formats_and_one_byte_more_is_refused(kind, tmp_path, monkeypatch):
    spec = make_spec(kind)
    schema = schema_of(spec)
    length = largest_update(spec, schema)
    assert length == member(kind, tmp_path).format.max_bytes
    monkeypatch.setattr(size, "MAX_BLOB_BYTES", length)
    check_update_size(spec, schema)
    monkeypatch.setattr(size, "MAX_BLOB_BYTES", length - 1)
    (name,) = OPTIMIZERS[kind]
    with pytest.raises(SpecError, match=f"^optimizer.{name}: an update of this model"):
        spec.resolve()


def test_nothing_is_made_to_find_that_five_billion_parameters_are_too_many():
    """A machine with little memory can say so: what is asked for here would take 20 GB."""
    tables = make_spec("adamw", matformer={"max_tier": 0}).model_dump(exclude_none=True)
    large = TrainSpec.model_validate({**tables, "checkpoint": {"Init": LARGE}})
    with pytest.raises(
        SpecError, match=r"whole gradients\) has up to 19\.1 GiB.*at most 16 GiB.*optimizer\.Distro"
    ):
        large.resolve()
    small = TrainSpec.model_validate(
        {**large.model_dump(exclude_none=True), "optimizer": OPTIMIZERS["distro"]}
    )
    assert largest_update(small, schema_of(small)) < 1 << 31
