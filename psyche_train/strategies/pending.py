"""What was taken out of the error buffers for rounds that the chain has not decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from psyche_train.fold.chunks import Grid


@dataclass(frozen=True, slots=True)
class Kept:
    """What one round took out of one tensor's error buffer."""

    keys: Tensor
    """int64 on the CPU, ``chunk * area + coefficient``."""
    values: Tensor
    """fp32 on the CPU."""


class Pending(dict[int, dict[str, Kept]]):
    """Round number -> tensor name -> what was taken out for it."""

    def drop_before(self, round_number: int) -> None:
        """Forget rounds below `round_number`, whose decision will not come any more."""
        for number in [number for number in self if number < round_number]:
            del self[number]

    def all(self) -> Iterator[Tensor]:
        """Every tensor."""
        for kept in self.values():
            for part in kept.values():
                yield part.keys
                yield part.values

    def tensors(self) -> dict[str, Tensor]:
        """Everything as flat tensors, for a file; `read` reads it back."""
        flat = {}
        for number, kept in self.items():
            for name, part in kept.items():
                flat[f"pending/{number}/keys/{name}"] = part.keys
                flat[f"pending/{number}/values/{name}"] = part.values
        return flat

    @classmethod
    def read(cls, flat: Mapping[str, Tensor], grids: Sequence[Grid]) -> Pending:
        """Take what `tensors` returned.

        Raises:
            ValueError: a tensor is missing or does not fit its grid.
        """
        pending = cls()
        for number in {int(key.split("/")[1]) for key in flat if key.startswith("pending/")}:
            kept = {}
            for grid in grids:
                keys = flat.get(f"pending/{number}/keys/{grid.name}")
                values = flat.get(f"pending/{number}/values/{grid.name}")
                if keys is None or values is None or keys.shape != values.shape:
                    raise ValueError(f"the saved update of round {number} lacks {grid.name}")
                if len(keys) and not 0 <= int(keys.min()) <= int(keys.max()) < grid.num_chunks * grid.area:
                    raise ValueError(f"the saved update of round {number} does not fit {grid.name}")
                kept[grid.name] = Kept(keys, values)
            pending[number] = kept
        return pending


def read_buffers(flat: Mapping[str, Tensor], kind: str, grids: Sequence[Grid]) -> dict[str, Tensor]:
    """Take one fp32 buffer per tensor, saved as ``kind/<tensor name>``.

    Raises:
        ValueError: one is missing or has another shape.
    """
    buffers = {}
    for grid in grids:
        tensor = flat.get(f"{kind}/{grid.name}")
        if tensor is None or tuple(tensor.shape) != grid.shape or not tensor.is_floating_point():
            raise ValueError(f"the saved buffer {kind}/{grid.name} is missing or has another shape")
        buffers[grid.name] = tensor
    return buffers
