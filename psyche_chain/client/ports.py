"""What the client needs from the chain, the peers and the model, as narrow interfaces.

The real ones are `psyche_chain.client.chain_port.ChainPort`, `psyche_train.network.NetworkClient` and
`psyche_train.trainer.Trainer`; tests give others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from solders.pubkey import Pubkey

from psyche_chain.chain.state import Checkpoint, RoundView
from psyche_chain.client.view import ChainView
from psyche_train.checkpoints.part_index import Offered, Part, PartIndex
from psyche_train.records import RoundRecord


class NotYet(Exception):
    """A duty cannot be done now; it is tried again. The message says what is missing."""


class Refused(Exception):
    """A program refused an instruction.

    Attributes:
        name: the error's name in the program's IDL.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at the chain."""

    view: ChainView
    clock: int
    """The chain's Unix time in whole seconds, at about the same moment."""


@dataclass(frozen=True, slots=True)
class Member:
    """One membership account."""

    slot: int
    wallet: Pubkey
    p2p_key: bytes
    contact: str
    """Comma-separated multiaddrs."""


class Chain(Protocol):
    """The run on chain. Every action returns the slot of the chain at which it landed.

    Actions raise `Refused` if a program refuses, and `PsycheError` if the chain cannot be reached.
    """

    async def snapshot(self) -> Snapshot:
        """The newest state; never older than one that was returned before."""
        ...

    async def members(self) -> list[Member]:
        """All memberships of the run."""
        ...

    async def join(self, contact: str) -> int: ...
    async def leave(self, slot: int) -> int: ...
    async def update_contact(self, contact: str) -> int: ...
    async def ready(self, slot: int) -> int: ...
    async def commit(self, slot: int, round: int, blob_id: bytes) -> int: ...
    async def witness(self, slot: int, round: int, seen: Collection[int]) -> int: ...
    async def attest(self, slot: int, step: int, digests: Sequence[bytes]) -> int: ...
    async def record(self, slot: int, uri: str) -> int: ...
    async def tick(self) -> int: ...


class Network(Protocol):
    """The peers; see `psyche_train.network.NetworkClient`."""

    @property
    def peer_key(self) -> bytes: ...
    async def addresses(self) -> list[str]: ...
    async def set_members(self, members: Sequence[Any]) -> None: ...
    async def publish(self, blob: bytes, hidden_until: int | None = None) -> bytes: ...
    async def publish_file(self, path: Path, blob_id: bytes) -> None: ...
    async def reveal(self, round: int) -> None: ...
    async def fetch(
        self, blob_id: bytes, *, deadline_s: float, max_bytes: int, holders: Sequence[bytes] = ()
    ) -> bytes: ...
    async def obtain(
        self, blob_id: bytes, *, deadline_s: float, max_bytes: int, holders: Sequence[bytes] = ()
    ) -> None: ...
    def path(self, blob_id: bytes) -> Path: ...
    async def verify(self, blob_id: bytes) -> None: ...
    async def fetch_log(
        self, after: bytes, *, deadline_s: float, peers: Sequence[bytes] = ()
    ) -> list[list[RoundRecord]]: ...
    async def prune(self, keep: Collection[bytes]) -> None: ...


class Model(Protocol):
    """The weights; see `psyche_train.trainer.Trainer`. Synchronous, one call at a time, except `check`."""

    parameters: int
    max_update_bytes: int

    data: Any
    """The run's samples: `missing`, `blobs`, `offers` and `refresh` of `psyche_train.data.dataset.Dataset`."""

    @property
    def position(self) -> Any: ...

    def train(self, job: Any, cancelled: Callable[[], bool]) -> Any: ...
    def check(self, blob: bytes, header: Any) -> None: ...
    def fold(self, record: RoundRecord, blobs: Mapping[int, bytes], own_slot: int | None) -> None: ...
    def digests(self) -> list[bytes]: ...
    def weights_hash(self) -> bytes: ...
    def save(self) -> Path: ...
    def pin(self, path: Path | None) -> None: ...
    def restore(self, source: Any, position: Any) -> None:
        """Take the weights of a path, or what `Adapter.assembled` returned."""
        ...

    def reset(self) -> None: ...
    def validation_loss(self) -> float: ...


class Evals(Protocol):
    """An evaluation that goes on in slices; see `psyche_train.evals.member.MemberEvals`."""

    def is_due(self, step: int) -> bool: ...
    def slice(self, step: int) -> dict[str, Any] | None: ...


class Adapter(Protocol):
    """The client's values in the trainer's and the network's own types."""

    def job(self, round_: RoundView, slot: int, tier: int, share: Sequence[range]) -> Any:
        """What `Model.train` takes."""
        ...

    def expected(self, round_: RoundView, slot: int, tier: int, share: Sequence[range]) -> Any:
        """What `Model.check` compares a blob with."""
        ...

    def position_of(self, checkpoint: Checkpoint) -> Any:
        """The trainer's position at an agreed checkpoint."""
        ...

    def offered(self, path: Path, folder: Path) -> Sequence[Offered]:
        """Write the parts of a saved checkpoint directory, which peers are given, as files into a folder.

        Raises:
            ValueError: the checkpoint is damaged.
            StorageError: disk full or not writable.
        """
        ...

    def is_full(self, index: PartIndex) -> bool:
        """Whether the parts make up the full model."""
        ...

    def needed(self, index: PartIndex) -> Sequence[Part]:
        """The parts that this member's tier holds.

        Raises:
            ValueError: they are not those of this run's model.
        """
        ...

    def assembled(self, parts: Sequence[Part], path_of: Callable[[bytes], Path]) -> Any:
        """Verified weights of this member's tier, for `Model.restore`.

        Raises:
            ValueError: the blobs hold something else.
        """
        ...

    def verify_own(self, path: Path, checkpoint: Checkpoint) -> None:
        """Check a checkpoint directory that this member saved at the history of an agreed checkpoint.

        Raises:
            ValueError: it is damaged, of another run or tier, or not the agreed weights.
        """
        ...

    def verify(self, path: Path, weights_hash_: bytes) -> None:
        """Check a full model file against the chain's weights hash.

        Raises:
            ValueError: it is another model, or no model.
        """
        ...
