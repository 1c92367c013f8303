"""The network that `psyche-localnet run` puts between its members."""

from __future__ import annotations

from pathlib import Path

import pytest

from localnet.faults import packets
from localnet.faults.packets import PacketNetworkError
from localnet.run.badnet import NOTHING_BAD, open_bad_network


async def test_where_packets_cannot_be_lost_the_reason_is_told_and_proxies_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "why_not", lambda: "network namespaces need root")
    told: list[str] = []
    folders = [tmp_path / "0", tmp_path / "1"]
    async with open_bad_network(NOTHING_BAD, folders, 0, packets=True, instead=told.append) as network:
        assert told == ["network namespaces need root"]
        assert network.chain_host == "127.0.0.1"
        assert network.prefix(0) == ()
        assert len({network.listen(0), network.listen(1), network.announced(0), network.announced(1)}) == 4


async def test_who_insists_on_packets_gets_an_error_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "why_not", lambda: "network namespaces need root")
    with pytest.raises(PacketNetworkError, match="need root"):
        async with open_bad_network(NOTHING_BAD, [tmp_path / "0"], 0, packets=True):
            pass
