"""The duties: what a member can owe the run. `psyche_chain.client.duties` decides which ones are owed now."""

from __future__ import annotations

from dataclasses import dataclass

from psyche_chain.client.view import RoundView
from psyche_train.records import RoundRecord


@dataclass(frozen=True, slots=True)
class Duty:
    """One thing to do. Two duties with the same `key` are the same duty."""

    @property
    def key(self) -> str:
        """Name of the duty, unique among the duties of one snapshot."""
        return type(self).__name__.lower()


@dataclass(frozen=True, slots=True)
class Join(Duty):
    """Become a member (again)."""


@dataclass(frozen=True, slots=True)
class Leave(Duty):
    """Stop being a member, gracefully."""

    slot: int


@dataclass(frozen=True, slots=True)
class UpdateContact(Duty):
    """Write the own addresses to the membership."""

    contact: str


@dataclass(frozen=True, slots=True)
class Ready(Duty):
    """Say that the own weights are at the log's head."""

    slot: int
    epoch: int

    @property
    def key(self) -> str:
        return f"ready {self.epoch}"


@dataclass(frozen=True, slots=True)
class Weights(Duty):
    """A duty that needs the model. They share a key, so that only one of them is done at a time."""

    @property
    def key(self) -> str:
        return "weights"


@dataclass(frozen=True, slots=True)
class Fold(Weights):
    """Fold closed rounds; the records are verified against the chain's history."""

    records: tuple[RoundRecord, ...]


@dataclass(frozen=True, slots=True)
class CatchUp(Weights):
    """The ring does not reach back to the own weights: replay from peers or start from a checkpoint."""


@dataclass(frozen=True, slots=True)
class Compare(Weights):
    """Compare the own weights with the agreed ones of that history, and take those if they differ."""

    history: bytes


@dataclass(frozen=True, slots=True)
class Save(Weights):
    """Write a checkpoint of the weights at `history`."""

    history: bytes
    step: int


@dataclass(frozen=True, slots=True)
class Validate(Weights):
    """Measure the validation loss."""


@dataclass(frozen=True, slots=True)
class Evaluate(Weights):
    """Go on with the evaluation, slice by slice, until another duty needs the model."""


@dataclass(frozen=True, slots=True)
class Train(Weights):
    """Train the own share of a round and store the blob."""

    round: RoundView
    slot: int


@dataclass(frozen=True, slots=True)
class Share(Duty):
    """Offer the run's data to those who lack them."""


@dataclass(frozen=True, slots=True)
class Gather(Duty):
    """Fetch the run's data from those who have them."""


@dataclass(frozen=True, slots=True)
class Commit(Duty):
    """Write the id of the own blob to the chain."""

    slot: int
    round: int
    blob_id: bytes

    @property
    def key(self) -> str:
        return f"commit {self.round}"


@dataclass(frozen=True, slots=True)
class Reveal(Duty):
    """Serve the own blobs up to this round."""

    round: int

    @property
    def key(self) -> str:
        return f"reveal {self.round}"


@dataclass(frozen=True, slots=True)
class Fetch(Duty):
    """Bring one committed blob to this disk and check it."""

    round: int
    slot: int
    blob_id: bytes

    @property
    def key(self) -> str:
        return f"fetch {self.round} {self.slot}"


@dataclass(frozen=True, slots=True)
class Witness(Duty):
    """Attest which blobs of a round are here and decode."""

    slot: int
    round: int
    seen: frozenset[int]

    @property
    def key(self) -> str:
        return f"witness {self.round}"


@dataclass(frozen=True, slots=True)
class Attest(Duty):
    """Vote for the digests of the own weights in a cooldown."""

    slot: int
    step: int
    history: bytes

    @property
    def key(self) -> str:
        return f"attest {self.step}"


@dataclass(frozen=True, slots=True)
class Offer(Duty):
    """Put the parts of a saved checkpoint into the blob store, for the uri and for newcomers."""

    history: bytes

    @property
    def key(self) -> str:
        return f"offer {self.history.hex()}"


@dataclass(frozen=True, slots=True)
class Record(Duty):
    """Write the uri of the agreed checkpoint to the chain."""

    slot: int
    step: int
    uri: str

    @property
    def key(self) -> str:
        return f"record {self.step}"


@dataclass(frozen=True, slots=True)
class Tidy(Duty):
    """Clean up after a checkpoint was agreed."""

    history: bytes


@dataclass(frozen=True, slots=True)
class Tick(Duty):
    """Move the run on; anyone may, and about one member should."""

    nonce: int

    @property
    def key(self) -> str:
        return f"tick {self.nonce}"


@dataclass(frozen=True, slots=True)
class Finish(Duty):
    """The run is finished and the weights are at its end, saved."""
