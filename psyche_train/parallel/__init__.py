"""Several processes that train as one member: each sees a part of the batch and owns a part of the tensors.

Every rank holds the whole model. A gradient is summed to the rank that owns the tensor; the owner alone keeps
its error buffer and optimizer state, encodes its part of the update, folds it, and sends the new weights to the
others. So state is sharded, and the ranks' weights are equal by construction, not by repeated arithmetic.
Rank 0 is the trainer's own process; it starts the others and tells them what to do over pipes.
"""

from psyche_train.parallel.group import RankError
from psyche_train.parallel.team import Team

__all__ = ["RankError", "Team"]
