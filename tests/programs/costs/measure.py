"""Play all scenes."""

from tests.programs.costs import dearest, usual, waiting
from tests.programs.costs.table import CAPACITIES, Table


def table() -> Table:
    """The table as the programs in psyche_chain/programs have it: some 15 seconds."""
    result = Table()
    for capacity in CAPACITIES:
        for scene in (usual, dearest, waiting):
            scene.play(result, capacity)
    return result
