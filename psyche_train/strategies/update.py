"""A whole update: the common header and the body of the run's strategy.

An update has exactly one encoding, and decoding is total: any byte string gives an update or an
`UpdateError`. Nothing is allocated before the length was compared with the longest valid one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from psyche_train.assign import num_samples
from psyche_train.jobs import TrainJob
from psyche_train.records import RoundRecord
from psyche_train.strategies.header import (
    MAX_HEADER_BYTES,
    ExpectedUpdate,
    UpdateError,
    UpdateHeader,
    check_header,
    decode_header,
    encode_header,
)

logger = logging.getLogger(__name__)

B = TypeVar("B")


class Codec(Protocol[B]):
    """The bytes of one strategy's body at one tier."""

    @property
    def max_bytes(self) -> int:
        """Length of the longest valid body."""
        ...

    def encode(self, body: B) -> bytes:
        """Return the one encoding of a body."""
        ...

    def decode(self, data: bytes, at: int) -> B:
        """Read the body that begins at byte `at` and ends with `data`.

        Raises:
            UpdateError: what is wrong with it; never anything else, whatever the bytes.
        """
        ...


@dataclass(frozen=True, slots=True)
class Update(Generic[B]):
    """A decoded update."""

    header: UpdateHeader
    body: B


class UpdateFormat(Generic[B]):
    """Turns a run's updates into bytes and back.

    Args:
        strategy: number of the run's strategy.
        schema: hash of the run's schema.
        codecs: one per tier.
        tokens_per_sample: what the token count of a header is compared with.
    """

    def __init__(
        self, *, strategy: int, schema: bytes, codecs: Sequence[Codec[B]], tokens_per_sample: int
    ) -> None:
        self.strategy = strategy
        self.schema = schema
        self.codecs = codecs
        self.tokens_per_sample = tokens_per_sample
        self.max_bytes = MAX_HEADER_BYTES + max(codec.max_bytes for codec in codecs)
        """Length of the longest valid update of any tier."""

    def encode(self, update: Update[B]) -> bytes:
        """Return the one encoding of an update.

        Raises:
            UpdateError: a number of the header does not fit its field.
        """
        head = encode_header(update.header, self.strategy)
        return head + self.codecs[update.header.tier].encode(update.body)

    def of_job(self, job: TrainJob, run: bytes, loss: float, body: B) -> bytes:
        """Return the bytes of what a member trained for a job.

        Args:
            run: 32 bytes, the run's key.
            loss: mean per token.
        """
        header = UpdateHeader(
            run=run,
            epoch=job.epoch,
            round=job.round,
            step=job.step,
            slot=job.slot,
            tier=job.tier,
            schema=self.schema,
            loss=loss,
            tokens=num_samples(job.intervals) * self.tokens_per_sample,
            intervals=tuple(job.intervals),
        )
        return self.encode(Update(header, body))

    def accepted(self, record: RoundRecord, blobs: Mapping[int, bytes], run: bytes) -> list[Update[B]]:
        """Read the accepted updates of a round, in slot order; one that does not decode contributes nothing.

        Args:
            blobs: slot -> blob of every accepted slot.
        """
        updates = []
        for entry in sorted(record.accepted, key=lambda entry: entry.slot):
            expected = ExpectedUpdate(
                run=run,
                epoch=record.epoch,
                round=record.number,
                step=record.step,
                slot=entry.slot,
                tier=entry.tier,
            )
            try:
                updates.append(self.decode(blobs[entry.slot], expected))
            except UpdateError as error:
                logger.warning(
                    "accepted update contributes nothing round=%d slot=%d reason=%s",
                    record.number,
                    entry.slot,
                    error,
                )
        return updates

    def decode(self, data: bytes, expected: ExpectedUpdate | None = None) -> Update[B]:
        """Read an update and compare its header with what the chain says.

        Raises:
            UpdateError: what is wrong with it; never anything else, whatever the bytes.
        """
        header, at = decode_header(data, self.strategy)
        if expected is not None:
            check_header(header, expected)
        if header.tier >= len(self.codecs):
            raise UpdateError("tier", f"tier {header.tier}, this run's highest is {len(self.codecs) - 1}")
        if header.schema != self.schema:
            raise UpdateError("schema", f"made for schema {header.schema.hex()[:16]}, not this model's")
        if header.tokens != num_samples(header.intervals) * self.tokens_per_sample:
            raise UpdateError("number", f"{header.tokens} tokens are not those of {list(header.intervals)}")
        codec = self.codecs[header.tier]
        if len(data) - at > codec.max_bytes:
            raise UpdateError(
                "length", f"a body of {len(data) - at} bytes, at most {codec.max_bytes} at tier {header.tier}"
            )
        return Update(header, codec.decode(data, at))
