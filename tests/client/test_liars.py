"""Peers that lie when a member catches up: whatever they say, its weights are the run's or it waits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psyche_chain.chain.state import Phase
from psyche_chain.client import catchup, sharing
from psyche_chain.client.ledger import head, link_through
from psyche_chain.client.ports import NotYet
from psyche_chain.client.view import GENESIS, ChainView
from psyche_train.blobs import blob_id
from psyche_train.records import Accepted, RoundRecord
from tests.client.test_rewind import Scene, record, rounds, update
from tests.client.views import a_view, member
from tests.client.world import FakeMember, FakeNetwork

ROUNDS = 9
TRUE = [one for one, _ in rounds(1, ROUNDS)]
LIAR, HONEST = b"l" * 32, b"p" * 32

Log = Sequence[RoundRecord]


def with_update_of(one: RoundRecord, blob: bytes) -> RoundRecord:
    """The record with another update in the place of the accepted one."""
    return replace(one, accepted=(replace(one.accepted[0], commitment=blob_id(blob)),))


FORGED = b"update of the liar"
LIES: dict[str, Callable[[], Log]] = {
    "truncated": lambda: TRUE[:4],
    "its beginning cut off": lambda: TRUE[3:],
    "one left out": lambda: [*TRUE[:3], *TRUE[4:]],
    "two exchanged": lambda: [*TRUE[:3], TRUE[4], TRUE[3], *TRUE[5:]],
    "backwards": lambda: TRUE[::-1],
    "one twice": lambda: [*TRUE[:4], TRUE[3], *TRUE[4:]],
    "one invented at the end": lambda: [*TRUE, record(ROUNDS + 1, ROUNDS, "invented")],
    "one invented in the middle": lambda: [*TRUE[:4], record(5, 4, "invented"), *TRUE[5:]],
    "the update of another": lambda: [*TRUE[:4], with_update_of(TRUE[4], update(9)), *TRUE[5:]],
    "an update of its own": lambda: [*TRUE[:4], with_update_of(TRUE[4], FORGED), *TRUE[5:]],
    "nobody accepted": lambda: [*TRUE[:4], replace(TRUE[4], accepted=()), *TRUE[5:]],
    "another weight": lambda: [
        *TRUE[:4],
        replace(TRUE[4], accepted=(replace(TRUE[4].accepted[0], weight=9),)),
        *TRUE[5:],
    ],
    "one more accepted": lambda: [
        *TRUE[:4],
        replace(
            TRUE[4],
            assigned=b"\x03" + bytes(31),
            accepted=(*TRUE[4].accepted, Accepted(1, 0, 1, blob_id(FORGED))),
        ),
        *TRUE[5:],
    ],
    "not trained": lambda: [*TRUE[:4], replace(TRUE[4], trained=False, accepted=()), *TRUE[5:]],
    "of another specification": lambda: [replace(one, spec_hash=bytes(32)) for one in TRUE],
    "rounds of the future": lambda: [replace(one, number=one.number + 10**6) for one in TRUE],
    "nothing of the run": lambda: [record(n, n - 1, "invented") for n in range(1, 60)],
    "empty": lambda: [],
}
HARMLESS = {"one invented at the end"}
"""The true log is in it, so that its true part is used."""


class Crowd(Scene):
    """A member among liars, each with a log of its own, and one honest peer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.logs: dict[bytes, Log] = {}
        self.page: int | None = None
        self.asked: list[Sequence[bytes]] = []
        self.network.fetch_log = self._fetch_log  # type: ignore[method-assign]
        for one, blob in rounds(1, ROUNDS):
            for accepted in one.accepted:
                self.peer.own.blobs[accepted.commitment] = blob
        self.peer.own.blobs[blob_id(FORGED)] = FORGED
        self.true_weights = FakeWeights(TRUE)

    async def _fetch_log(
        self, after: bytes, *, deadline_s: float, peers: Sequence[bytes] = ()
    ) -> list[list[RoundRecord]]:
        """Honest peers continue from `after`; liars say their log whatever they are asked."""
        self.asked.append(peers)
        found = []
        for key, log in self.logs.items():
            if peers and key not in peers:
                continue
            rest: list[RoundRecord] = list(log)
            if key == HONEST:
                histories = [head(GENESIS, TRUE[:i]) for i in range(len(TRUE) + 1)]
                rest = TRUE[histories.index(after) :] if after in histories else []
            if rest := rest[: self.page]:
                found.append(rest)
        return found

    def view(self) -> ChainView:
        slots = {i: replace(member(i), p2p_key=key) for i, key in enumerate(self.logs)}
        return replace(self.at(head(GENESIS, TRUE)), slots=slots, next_round=ROUNDS + 1)


class FakeWeights:
    """What folding records one after the other into the first weights gives."""

    def __init__(self, records: Log) -> None:
        self.hash = b"init"
        for one in records:
            self.hash = hashlib.sha256(self.hash + update(one.number)).digest()


@pytest.fixture
def crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crowd:
    monkeypatch.setattr(catchup, "BLOB_DEADLINE_S", 0.2)
    monkeypatch.setattr(catchup, "LOG_OF_ONE_PEER_S", 2.0)
    monkeypatch.setattr(sharing, "INDEX_DEADLINE_S", 0.2)
    (tmp_path / "own").mkdir()
    return Crowd(tmp_path)


@pytest.mark.parametrize("lie", LIES)
async def test_one_that_lies_alone_is_refused_and_changes_nothing(crowd: Crowd, lie: str) -> None:
    crowd.logs = {LIAR: LIES[lie]()}
    if lie in HARMLESS:
        await crowd.catch_up.catch_up(crowd.view())
        assert crowd.model.weights == crowd.true_weights.hash
        return
    with pytest.raises(NotYet, match="no peer has the records after history 0000"):
        await crowd.catch_up.catch_up(crowd.view())
    assert (crowd.weights.history, crowd.model.weights) == (GENESIS, b"init")
    assert not (crowd.folder / "own" / "records.log").read_bytes()


@pytest.mark.parametrize("page", [None, 2, 1])
@pytest.mark.parametrize("lie", LIES)
async def test_honest_peer_is_found_behind_one_that_lies(crowd: Crowd, lie: str, page: int | None) -> None:
    crowd.logs = {LIAR: LIES[lie](), HONEST: TRUE}
    crowd.page = page
    await crowd.catch_up.catch_up(crowd.view())
    assert crowd.weights.history == head(GENESIS, TRUE)
    assert crowd.model.weights == crowd.true_weights.hash


async def test_honest_peer_is_found_behind_all_lies_at_once(crowd: Crowd) -> None:
    crowd.logs = {bytes([i]) * 32: log() for i, log in enumerate(LIES.values())} | {HONEST: TRUE}
    crowd.page = 2
    await crowd.catch_up.catch_up(crowd.view())
    assert crowd.model.weights == crowd.true_weights.hash
    assert [HONEST] in [list(peers) for peers in crowd.asked], "each was asked for itself"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.lists(st.integers(0, ROUNDS - 1), max_size=2 * ROUNDS),
    forged=st.sets(st.integers(0, 2 * ROUNDS - 1), max_size=3),
    more=st.sampled_from(["seed", "samples", "data_index", "epoch", "step", "assigned"]),
)
def test_no_log_leads_anywhere_but_along_the_chain(order: list[int], forged: set[int], more: str) -> None:
    """Whatever order and whatever changes: `link_through` gives the true records, or none."""
    changes = {"seed": b"\x01" * 32, "assigned": b"\x03" + bytes(31)}
    log = [TRUE[i] for i in order]
    for at in forged:
        if at < len(log):
            log[at] = replace(log[at], **{more: changes.get(more, 77)})
    view = replace(a_view(Phase.PAUSED), history=head(GENESIS, TRUE))
    found = link_through(GENESIS, [log], view)
    assert found in (None, TRUE)
    assert (found == TRUE) == (log[:ROUNDS] == TRUE)


async def test_liar_with_endless_pages_costs_its_time_and_no_more(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that one more round came, whatever it is asked."""
    fetch = crowd.network.fetch_log
    said = 0

    async def endless(
        after: bytes, *, deadline_s: float, peers: Sequence[bytes] = ()
    ) -> list[list[RoundRecord]]:
        nonlocal said
        if not peers or LIAR in peers:
            said += 1
            own = [[record(said, said, "invented")]]
            return own + (await fetch(after, deadline_s=deadline_s, peers=peers) if not peers else [])
        return await fetch(after, deadline_s=deadline_s, peers=peers)

    crowd.network.fetch_log = endless  # type: ignore[method-assign]
    crowd.logs = {LIAR: [], HONEST: TRUE}
    crowd.page = 3
    await crowd.catch_up.catch_up(crowd.view())
    assert crowd.model.weights == crowd.true_weights.hash
    assert said <= ROUNDS + 2, "no round is believed that the chain has not opened"


async def test_peers_that_let_wait_do_so_all_at_the_same_time(crowd: Crowd) -> None:
    """Twenty stand before the honest one and never end; it is asked before their time is over."""
    fetch = crowd.network.fetch_log

    async def slow(
        after: bytes, *, deadline_s: float, peers: Sequence[bytes] = ()
    ) -> list[list[RoundRecord]]:
        if peers and HONEST not in peers:
            await trio.sleep_forever()
        return await fetch(after, deadline_s=deadline_s, peers=peers)

    crowd.network.fetch_log = slow  # type: ignore[method-assign]
    crowd.logs = {bytes([i]) * 32: [record(1, 0, "invented")] for i in range(20)} | {HONEST: TRUE}
    crowd.page = 3
    with trio.fail_after(2 * catchup.LOG_OF_ONE_PEER_S + 8):
        await crowd.catch_up.catch_up(crowd.view())
    assert crowd.model.weights == crowd.true_weights.hash


async def test_false_blob_under_a_true_name_is_not_folded(crowd: Crowd) -> None:
    """Only the network can hand over such bytes, and the model counts on what its id says."""
    crowd.logs = {HONEST: TRUE}
    del crowd.peer.own.blobs[TRUE[4].accepted[0].commitment]
    with pytest.raises(NotYet, match="round 5: "):
        await crowd.catch_up.catch_up(crowd.view())
    assert crowd.weights.history == head(GENESIS, TRUE[:4])
    crowd.peers[b"q" * 32] = FakeMember({TRUE[4].accepted[0].commitment: update(5)}, {}, -1, Path("none"))
    assert isinstance(crowd.network, FakeNetwork)
    await crowd.catch_up.catch_up(crowd.view())
    assert crowd.model.weights == crowd.true_weights.hash
