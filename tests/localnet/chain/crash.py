"""A chain under load that is killed at random moments, and what must hold when it is back."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from solders.hash import Hash
from solders.keypair import Keypair

from localnet.chain.process import ChainProcess

from .conformance.node import Rpc
from .conformance.world import SOL, encoded, pay
from .conftest import signed

FEE = 5_000
FUNDED = 1_000_000 * SOL


@dataclass
class Sender:
    """One payer with one target; every transfer has an amount of its own, so that a balance tells which landed."""

    payer: Keypair = field(default_factory=Keypair)
    target: Keypair = field(default_factory=Keypair)
    num_sent: int = 0
    confirmed: list[str] = field(default_factory=list)

    def stream(self, rpc: Rpc, stop: threading.Event) -> None:
        """Send and confirm until told to stop or the chain is gone."""
        try:
            while not stop.is_set():
                latest = rpc.result("getLatestBlockhash", {"commitment": "confirmed"})
                blockhash = Hash.from_string(latest["value"]["blockhash"])
                for _ in range(10):
                    self.num_sent += 1
                    tx = signed(
                        [pay(self.payer, self.target.pubkey(), SOL + self.num_sent)], blockhash, self.payer
                    )
                    signature = rpc.result("sendTransaction", encoded(tx), {"encoding": "base64"})
                    status = rpc.result("getSignatureStatuses", [signature])["value"][0]
                    if status is not None and status["err"] is None:
                        self.confirmed.append(signature)
        except httpx.HTTPError:
            return

    def check(self, rpc: Rpc) -> None:
        """Nothing confirmed is lost, and nothing is half there."""
        found = [
            status
            for at in range(0, len(self.confirmed), 256)
            for status in rpc.result("getSignatureStatuses", self.confirmed[at : at + 256])["value"]
        ]
        assert all(status is not None and status["err"] is None for status in found), (
            "a confirmed one is lost"
        )
        listed = _listed(rpc, str(self.target.pubkey()))
        assert {entry["signature"] for entry in listed} >= set(self.confirmed)
        received = rpc.result("getBalance", str(self.target.pubkey()))["value"]
        left = rpc.result("getBalance", str(self.payer.pubkey()))["value"]
        assert left == FUNDED - received - FEE * len(listed), "a transaction is half applied"
        amounts = 0
        for entry in listed:
            meta = rpc.result("getTransaction", entry["signature"])["meta"]
            amounts += meta["postBalances"][1] - meta["preBalances"][1]
            assert entry["slot"] <= rpc.result("getSlot", {"commitment": "confirmed"})
            if amounts > 50 * SOL:
                break  # the sum of all of them is the balance; some of them are looked at one by one
        assert received // SOL == len(listed), "the history and the balance differ"


def _listed(rpc: Rpc, address: str) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = []
    while True:
        options = {"before": listed[-1]["signature"]} if listed else {}
        page = rpc.result("getSignaturesForAddress", address, {"commitment": "confirmed", **options})
        listed += page
        if len(page) < 1_000:
            return listed


@dataclass(frozen=True)
class Result:
    """What so many kills left."""

    kills: int
    confirmed: int


def run(folder: Path, *, kills: int, senders: int = 3, seed: int = 0) -> Result:
    """Kill a chain under load again and again; raises AssertionError where a promise is broken."""
    moments = random.Random(seed)
    chain = ChainProcess(folder, slot_ms=50)
    streams = [Sender() for _ in range(senders)]
    chain.start()
    try:
        chain.wait_ready()
        rpc = Rpc(chain.url, chain.ws_url)
        for sender in streams:
            rpc.result("requestAirdrop", str(sender.payer.pubkey()), FUNDED)
        genesis, slot = rpc.result("getGenesisHash"), 0
        for _ in range(kills):
            before = [len(sender.confirmed) for sender in streams]
            stop = threading.Event()
            threads = [threading.Thread(target=s.stream, args=(Rpc(chain.url, ""), stop)) for s in streams]
            for thread in threads:
                thread.start()
            end = time.monotonic() + 60
            while not all(len(s.confirmed) > n for s, n in zip(streams, before, strict=True)):
                assert time.monotonic() < end, "the chain confirms nothing"
                time.sleep(0.01)
            time.sleep(moments.random() * 0.5)
            chain.kill()
            stop.set()
            for thread in threads:
                thread.join()
            chain.start()
            chain.wait_ready()
            rpc = Rpc(chain.url, chain.ws_url)
            assert rpc.result("getGenesisHash") == genesis
            now = rpc.result("getSlot", {"commitment": "confirmed"})
            assert now >= slot, "the chain went back"
            slot = now
            for sender in streams:
                sender.check(rpc)
        return Result(kills, sum(len(sender.confirmed) for sender in streams))
    finally:
        chain.stop()
