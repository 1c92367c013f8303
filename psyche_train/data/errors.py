"""What can be wrong with data.

DataError (ValueError): a source is missing here, unreadable, or holds other bytes than the spec says.
    PieceError: a piece of a shard cannot be had, or is not what its manifest says.
    MissingData: nothing is wrong with what is here, but peers have to be asked for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence


class DataError(ValueError):
    """A source is missing here, unreadable, or holds other bytes than the spec says."""


class PieceError(DataError):
    """A piece of a shard cannot be had, or is not what its manifest says.

    Attributes:
        first, last: bytes of the shard that cannot be read, as a half-open interval.
    """

    def __init__(self, message: str, first: int, last: int) -> None:
        super().__init__(message)
        self.first, self.last = first, last


class MissingData(DataError):
    """Nothing is wrong with what is here, but peers have to be asked for the rest.

    Attributes:
        blobs: ids of what is missing; once they are in the blob folder, opening goes on.
        known: ids of all blobs of the source that are known so far, those that are here included.
    """

    def __init__(self, message: str, blobs: Sequence[bytes], known: Sequence[bytes] = ()) -> None:
        super().__init__(message)
        self.blobs, self.known = tuple(blobs), (*known, *blobs)
