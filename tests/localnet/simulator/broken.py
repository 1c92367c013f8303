"""Members with a planted bug each: what the simulator must find."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from localnet.simulator.member import Parts
from localnet.simulator.model import Position, SimModel, fold_parts
from localnet.simulator.plan import Plan, draw
from psyche_chain.client.acts import Acts
from psyche_chain.client.catchup import CatchUp
from psyche_chain.client.duty import Duty, Witness
from psyche_chain.client.loop import Client
from psyche_chain.client.view import ChainView, MyState
from psyche_train.records import RoundRecord


class TrainsFromOldWeights(Client):
    """Believes that its weights are at the head of the log."""

    def my_state(self) -> MyState:
        me = super().my_state()
        return dataclasses.replace(me, history=self._view.history) if self._view else me


class NeverTriesAgain(Client):
    """Gives a duty up for good once it failed."""

    def _failed(self, duty: Duty, why: Any, error: Exception, **how: Any) -> None:
        super()._failed(duty, why, error, **how)
        why.retry_at = float("inf")


class StartsEveryDutyAnew(Client):
    """Forgets which duties are under way."""

    def my_state(self) -> MyState:
        return dataclasses.replace(super().my_state(), busy=frozenset())


class AttestsUnseen(Acts):
    """Attests every commitment, whether the blob is there or not."""

    async def do(self, duty: Duty, view: ChainView) -> int:
        if isinstance(duty, Witness) and (round_ := view.round(duty.round)) is not None:
            duty = dataclasses.replace(duty, seen=round_.committed)
        return await super().do(duty, view)


class BelievesPeers(CatchUp):
    """Takes the first log that a peer offers."""

    async def _records_of_peers(self, start: bytes, view: ChainView) -> list[RoundRecord] | None:
        found = await self._network.fetch_log(start, deadline_s=10)
        return found[0] if found else None


class StaysOnItsBranch(CatchUp):
    """Does not follow the chain when it goes back."""

    async def _start_over(self, view: ChainView) -> bool:
        return False


class FoldsAsTheyCome(SimModel):
    """Folds updates in the order in which they arrived."""

    def fold(self, record: RoundRecord, blobs: Mapping[int, bytes], own_slot: int | None) -> None:
        by_slot = {a.slot: a for a in record.accepted}
        for slot in blobs:
            one = dataclasses.replace(record, accepted=(by_slot[slot],))
            self.parts = fold_parts(self.parts, self._top, one, blobs)
        history = record.next_history(self.position.history)
        self.position = Position(history, self.position.step + record.trained)
        self._lab.folded(self.position, self.parts, self._tier)


@dataclasses.dataclass(frozen=True)
class Bug:
    """A planted bug, and the schedules that bring it out."""

    parts: Parts
    shows: set[str]
    """Kinds of violation that it leads to."""
    kinds: tuple[str, ...] = ()
    faults: int = 0
    rules: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of the plan, instead of what is drawn."""
    lasting_s: float = 0.0
    """Shortest duration of a fault."""

    def plan(self, seed: int) -> Plan:
        plan = draw(seed, kinds=self.kinds, members=3, faults=self.faults)
        longer = tuple(dataclasses.replace(f, for_s=max(f.for_s, self.lasting_s)) for f in plan.faults)
        return dataclasses.replace(plan, faults=longer, **self.rules)


LONE_FULL_MEMBER = {"tiers": (0, 1, 1), "max_failed_warmups": 1, "epoch_time_s": 40, "total_steps": 9}
ONE_EPOCH = {"epoch_time_s": 1000, "total_steps": 9}
BUGS = {
    "trains from old weights": Bug(Parts(client=TrainsFromOldWeights), {"stale"}),
    "never tries again": Bug(
        Parts(client=NeverTriesAgain), {"stuck", "exit"}, ("rpc_down", "trainer_error", "answer_lost"), 6
    ),
    "starts every duty anew": Bug(Parts(client=StartsEveryDutyAnew), {"leak", "exception", "weights"}),
    "attests unseen": Bug(Parts(acts=AttestsUnseen), {"accepted"}, ("garbage",), 6),
    "believes peers": Bug(
        Parts(catch_up=BelievesPeers), {"weights", "exception"}, ("forge", "wipe"), 10, ONE_EPOCH, 90.0
    ),
    "stays on its branch": Bug(
        Parts(catch_up=StaysOnItsBranch), {"stuck", "exit"}, ("crash", "sleep"), 8, LONE_FULL_MEMBER, 100.0
    ),
    "folds as they come": Bug(Parts(model=FoldsAsTheyCome), {"weights"}),
}
