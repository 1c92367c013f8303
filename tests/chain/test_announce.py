"""Addresses that a member tells others: what nobody can dial is refused before anything starts."""

from __future__ import annotations

import pytest

from psyche_chain.cli.options import check_announce
from psyche_chain.errors import PsycheError


@pytest.mark.parametrize(
    "bad",
    [
        "/ip4/0.0.0.0/tcp/4001",
        "/ip4/203.0.113.7/tcp/0",
        "/ip4/203.0.113.7/udp/4001",
        "/ip6/203.0.113.7/tcp/4001",
        "/dns/a,b/tcp/4001",
        "/ip4/203.0.113.7/tcp/4001/p2p/x",
        "/ip4/203.0.113.7/tcp/" + "1" * 5000,
        "/dns/-/tcp/4001/",
        "203.0.113.7:4001",
        "",
    ],
)
def test_an_address_that_nobody_can_dial_is_not_announced(bad: str) -> None:
    with pytest.raises(PsycheError, match=r"--announce: .* is not an address that others can dial"):
        check_announce([bad])
    check_announce(["/ip4/203.0.113.7/tcp/4001", "/dns/gpu.example.org/tcp/4001", "/ip6/2001:db8::7/tcp/1"])


def test_more_addresses_than_the_chain_has_room_for_are_refused() -> None:
    with pytest.raises(PsycheError, match="the chain has room for 128"):
        check_announce(["/ip4/203.0.113.7/tcp/4001"] * 6)
