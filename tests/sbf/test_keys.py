"""Program keypairs: the committed ones are used, others are valid ed25519 keypairs."""

import json
import stat
from pathlib import Path

import pytest
from sbf_toolchain.driver import PROGRAMS, ROOT
from sbf_toolchain.keys import ensure_keypair
from solders.keypair import Keypair

IDS = {
    "authorizer": "DTrPTpHVse5cCM49ZXVZ741caG5Zqn9HfspeQmosFR7M",
    "coordinator": "G7KidNxsM5kHQGzoYj4gRocyi1B7QGPieFyvKpmtHoNb",
    "treasurer": "6aE5ZjrM2mxKZMkdWwKJq6HAThjCy3vvBedea1eLexYR",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_ensure_keypair_takes_the_committed_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}-keypair.json"
    ensure_keypair(path, ROOT / "programs" / "keys")
    assert str(Keypair.from_json(path.read_text()).pubkey()) == IDS[name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_ensure_keypair_makes_a_valid_one_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "other-keypair.json"
    ensure_keypair(path, tmp_path / "none")
    first = path.read_text()
    keypair = Keypair.from_json(first)  # checks that the public half belongs to the secret half
    assert list(bytes(keypair)) == json.loads(first)
    ensure_keypair(path, tmp_path / "none")
    assert path.read_text() == first
