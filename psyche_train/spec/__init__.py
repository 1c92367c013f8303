"""The training specification of a run: the TOML's `[model.LLM]`, checked, canonical and hashed."""

from psyche_train.spec.checkpoint import (
    Checkpoint,
    HubCheckpoint,
    InitCheckpoint,
    LocalCheckpoint,
    StoredCheckpoint,
    UrlCheckpoint,
)
from psyche_train.spec.data import (
    DataLocation,
    DummyData,
    FixedSource,
    HttpData,
    HubData,
    LocalData,
    ParquetData,
    PeersData,
    StdlibData,
    WeightedData,
)
from psyche_train.spec.matformer import MatFormer
from psyche_train.spec.optimizer import (
    AdamWOptimizer,
    AnyOptimizer,
    DistroOptimizer,
    Optimizer,
    SparseLoCoOptimizer,
)
from psyche_train.spec.schedule import AnySchedule, LrSchedule
from psyche_train.spec.tables import OneOf, Sha256Hex, Table
from psyche_train.spec.train import MAX_SPEC_BYTES, SpecError, TrainSpec

__all__ = [
    "MAX_SPEC_BYTES",
    "AdamWOptimizer",
    "AnyOptimizer",
    "AnySchedule",
    "Checkpoint",
    "DataLocation",
    "DistroOptimizer",
    "DummyData",
    "FixedSource",
    "HttpData",
    "HubCheckpoint",
    "HubData",
    "InitCheckpoint",
    "LocalCheckpoint",
    "LocalData",
    "LrSchedule",
    "MatFormer",
    "OneOf",
    "Optimizer",
    "ParquetData",
    "PeersData",
    "Sha256Hex",
    "SparseLoCoOptimizer",
    "SpecError",
    "StdlibData",
    "StoredCheckpoint",
    "Table",
    "TrainSpec",
    "UrlCheckpoint",
    "WeightedData",
]
