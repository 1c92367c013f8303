"""Blobs that a quorum attested and that nobody has any more, on the real coordinator and with real weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from psyche_chain.client import catchup, sharing
from psyche_chain.client.ledger import ring_records
from psyche_train.fold.digest import weights_hash
from tests.client.crew import Crew

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catchup, "BLOB_DEADLINE_S", 0.1)
    monkeypatch.setattr(sharing, "INDEX_DEADLINE_S", 0.2)
    monkeypatch.setattr(sharing, "BLOB_DEADLINE_S", 0.2)


@pytest.mark.slow
async def test_attested_blobs_that_nobody_has_any_more_end_in_a_rewind(tmp_path: Path) -> None:
    crew = Crew(tmp_path, max_failed_warmups=2, min_clients=2)
    await crew.play_epoch()
    await crew.agree()
    agreed = crew.view.checkpoint
    await crew.assert_equal()
    wanted = await crew.parts()
    assert weights_hash(wanted[0]) == agreed.weights_hash
    crew.chain.pass_time(1)
    crew.tick()
    await crew.play_epoch()

    # The last trained round is closed with a quorum's votes. One member folds it, then every copy is lost.
    first, second, third = crew.players
    lost = [a.commitment for record in ring_records(crew.view) for a in record.accepted]
    assert lost
    assert await first.follow()
    assert first.weights.history == crew.view.history
    for player in crew.players:
        player.lose_blobs(*lost)
    for player in (second, third):
        assert not await player.follow()
        assert "nobody has it" in player.why
        assert player.weights.history != crew.view.history
    third.start()  # a restart does not help
    assert not await third.follow()

    # Nobody agrees, and the warmups fail until the chain goes back.
    rewound = False
    for _ in range(12):
        crew.chain.pass_time(61)
        crew.tick()
        if crew.phase == "Warmup" and crew.view.history != agreed.history:
            crew.ready(first)  # is at the head, and alone there
        if rewound := crew.view.history == agreed.history:
            break
    assert rewound, crew.phase
    assert crew.view.step == agreed.step

    for player in crew.players:
        assert await player.follow(), player.why
    assert await crew.parts() == wanted, "everybody is back at the agreed weights, bit for bit"
    for player in crew.players:
        slot = crew.view.slots[player.member.slot]
        if slot.status.name not in ("WAITING", "ACTIVE"):
            crew.run.join(player.member)
    crew.tick()
    await crew.play_epoch()
    await crew.agree()
    assert crew.view.checkpoint.step > agreed.step
    await crew.assert_equal()
    assert await crew.parts() != wanted


async def test_slice_that_was_away_takes_its_part_of_the_agreed_checkpoint_once(tmp_path: Path) -> None:
    crew = Crew(tmp_path, init_min_clients=2)
    away = crew.players.pop()
    crew.run.duty("leave", away.member)
    crew.tick()
    for _ in range(2):
        await crew.play_epoch()
        await crew.agree()
        crew.chain.pass_time(1)
        crew.tick()
    wanted = await crew.parts()
    records = [record for _, record in crew.players[0].weights._log.entries()]
    for player in (*crew.players, away):
        player.lose_blobs(*(a.commitment for record in records for a in record.accepted))
    assert await away.follow(), away.why
    assert await away.weights.digests() == wanted[0][:1]
    index = await away.catch_up.sharing.index(crew.view.checkpoint)
    fetched = len(index.to_bytes()) + index.parts[0].num_bytes
    assert away.network.fetched_bytes == fetched
    away.start()  # it was killed before it saved anything
    assert away.weights.step == 0
    assert await away.follow(), away.why
    assert await away.weights.digests() == wanted[0][:1]
    assert away.network.fetched_bytes == fetched, "nothing comes twice"
