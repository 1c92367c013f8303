"""What the tests of update bodies share: random bodies, and bytes that were damaged."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from psyche_train.fold.chunks import Grid
from psyche_train.fold.exact import Signs


def chosen_keys(grid: Grid, counts: list[int], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """So many distinct entries of every chunk, ascending."""
    chosen = [
        chunk * grid.area + np.sort(generator.choice(grid.area, count, replace=False))
        for chunk, count in enumerate(counts)
    ]
    return np.concatenate([*chosen, np.empty(0, dtype=np.int64)]).astype(np.int64)


def signs(grid: Grid, counts: list[int], seed: int) -> Signs:
    """So many coefficients of every chunk with random signs."""
    generator = np.random.default_rng(seed)
    found = chosen_keys(grid, counts, generator)
    return Signs(found, generator.choice([-1, 1], len(found)).astype(np.int8))


@st.composite
def counts_of(draw: st.DrawFn, grid: Grid, kept: int) -> list[int]:
    """How many entries every chunk sends: often all that it may."""
    full = draw(st.booleans())
    return [kept if full else draw(st.integers(0, kept)) for _ in range(grid.num_chunks)]


@st.composite
def sign_bodies(draw: st.DrawFn, grids: tuple[Grid, ...], topk: int) -> tuple[Signs, ...]:
    """Bodies of DisTrO."""
    return tuple(
        signs(grid, draw(counts_of(grid, min(topk, grid.area))), draw(st.integers(0, 999))) for grid in grids
    )


def assert_equal_signs(left: tuple[Signs, ...], right: tuple[Signs, ...]) -> None:
    """Compare two bodies of DisTrO."""
    for one, two in zip(left, right, strict=True):
        assert one.keys.tolist() == two.keys.tolist()
        assert one.signs.tolist() == two.signs.tolist()
        assert (one.keys.dtype, one.signs.dtype) == (two.keys.dtype, two.signs.dtype)


def mutated(data: st.DataObject, blob: bytes) -> bytes:
    """Change bits, cut the end off, or put bytes in anywhere."""
    changed = bytearray(blob)
    for _ in range(data.draw(st.integers(1, 4))):
        match data.draw(st.integers(0, 2)):
            case 0 if changed:
                changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            case 1:
                del changed[data.draw(st.integers(0, len(changed))) :]
            case _:
                at = data.draw(st.integers(0, len(changed)))
                changed[at:at] = data.draw(st.binary(max_size=4))
    return bytes(changed)
