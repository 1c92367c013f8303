"""What was confirmed survives: kills at random moments, torn files, full disks, folders that cannot be written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from localnet.chain.bank import Bank, Busy, Stopped
from localnet.chain.process import ChainProcess, ChainProcessError
from localnet.chain.store import Store

from .conformance.node import Rpc
from .conformance.world import SOL
from .crash import run


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, kills=4)
    assert found.confirmed >= 4 * 3


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a chain that was killed with transactions in its log, and who received how many SOL."""
    folder = tmp_path_factory.mktemp("killed")
    chain = ChainProcess(folder, slot_ms=50)
    chain.start()
    try:
        chain.wait_ready()
        rpc = Rpc(chain.url, chain.ws_url)
        keys = [str(Keypair().pubkey()) for _ in range(12)]
        for number, key in enumerate(keys):
            rpc.result("requestAirdrop", key, (number + 1) * SOL)
        chain.kill()
    finally:
        chain.stop()
    return folder, keys


@pytest.mark.parametrize("cut", [1, 100, 4096, 5000, 20_000])
def test_torn_log_shows_whole_commits_only(killed: tuple[Path, list[str]], tmp_path: Path, cut: int) -> None:
    """A log whose end never reached the disk: what is before it is there, in order and whole."""
    folder, keys = killed
    shutil.copytree(folder, tmp_path / "torn")
    log = tmp_path / "torn" / "chain.sqlite3-wal"
    size = log.stat().st_size
    assert size > 20_000, "nothing to tear"
    os.truncate(log, size - cut)
    store = Store(tmp_path / "torn" / "chain.sqlite3")
    accounts = dict(store.accounts())
    lamports = [accounts[bytes(key)].lamports for key in _keys(keys) if bytes(key) in accounts]
    assert lamports == [(n + 1) * SOL for n in range(len(lamports))], "a later commit without an earlier one"
    assert store.last_transaction_id() == len(lamports), "a transaction without what it changed"
    store.close()


def _keys(texts: list[str]) -> list[Pubkey]:
    return [Pubkey.from_string(text) for text in texts]


@pytest.mark.parametrize("offset", [0, 50, 100])
def test_overwritten_database_is_named_and_not_served(killed, tmp_path: Path, offset: int) -> None:
    folder, _ = killed
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "chain.sqlite3-wal").unlink()
    database = tmp_path / "broken" / "chain.sqlite3"
    data = bytearray(database.read_bytes())
    data[offset : offset + 400] = b"\xff" * 400
    database.write_bytes(data)
    chain = ChainProcess(tmp_path / "broken")
    chain.start()
    try:
        assert chain.wait(60) == 1
        with pytest.raises(ChainProcessError, match=r"cannot be read as a chain .*--reset"):
            chain.is_ready()
    finally:
        chain.stop()


def test_full_disk_ends_the_chain_and_confirms_nothing(tmp_path: Path) -> None:
    """A commit that fails answers nobody with success, ends the chain, and what was confirmed stays."""
    bank = Bank(tmp_path / "chain.sqlite3", slot_ms=60_000)

    def publish(published) -> None:
        for future, result in published.answers:
            future.set_result(result)

    bank.start(publish)
    rich = Keypair().pubkey()
    confirmed = [bank.airdrop(bytes(rich), SOL).result(30)]
    bank._store._db.execute("PRAGMA max_page_count=1")  # SQLite then says what it says on a full disk
    last: BaseException | None = None
    while last is None and len(confirmed) < 1_000:  # until the pages that are already there are used up
        pending = bank.airdrop(bytes(Keypair().pubkey()), SOL)
        last = pending.exception(30)
        if last is None:
            confirmed.append(pending.result())
    assert isinstance(last, Stopped)
    assert "full" in str(last)
    bank.ended.result(30)
    assert "full" in str(bank.failed)
    with pytest.raises(Busy):
        bank.airdrop(bytes(rich), SOL)
    store = Store(tmp_path / "chain.sqlite3")
    accounts = dict(store.accounts())
    assert accounts[bytes(rich)].lamports == SOL
    assert store.last_transaction_id() == len(confirmed), "confirmed and kept are not the same"
    store.close()


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    chain = ChainProcess(tmp_path / "logs", options=["--state-dir", str(tmp_path / "file" / "state")])
    chain.start()
    assert chain.wait(60) == 1
    with pytest.raises(ChainProcessError, match=r"cannot use .* for the chain's state: Not a directory"):
        chain.is_ready()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
def test_read_only_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o500)
    chain = ChainProcess(tmp_path / "logs", options=["--state-dir", str(folder)])
    chain.start()
    assert chain.wait(60) == 1
    with pytest.raises(ChainProcessError, match=r"cannot use .* for the chain's state: Permission denied"):
        chain.is_ready()


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_listening_beyond_loopback_warns(tmp_path: Path, host: str, warned: bool) -> None:
    with ChainProcess(tmp_path, host=host) as chain:
        assert ("not on loopback" in chain.log_path.read_text()) == warned
