"""An hour's worth of slots in a minute or two, under transactions: what memory and disk do meanwhile.

Slots are faster, nothing else is: they are 10 ms long instead of 400, so that as many pass as in an hour.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from solders.hash import Hash
from solders.keypair import Keypair

from localnet.chain.process import ChainProcess

from .conformance.node import Rpc
from .conformance.world import CONFIRMED, SOL, encoded, pay
from .conftest import signed

SLOTS_AN_HOUR = 9_000
KEEP_SLOTS = 600
KEEP_TRANSACTIONS = 1_000
SLOT_MS = 10


@dataclass(frozen=True)
class Sample:
    """What the chain took at a slot, in MiB."""

    slot: int
    num_transactions: int
    resident_mib: float
    database_mib: float


@dataclass(frozen=True)
class Soak:
    """Samples over time, and what the chain says of the first block and of the first transaction."""

    samples: list[Sample]
    pruned_block: dict[str, object]
    pruned_transaction: object
    oldest: int

    def growth(self) -> tuple[float, float]:
        """By how much memory and disk grew from the first third to the last, as ratios of their highest values."""
        third = len(self.samples) // 3
        first, last = self.samples[third : 2 * third], self.samples[-third:]

        def ratio(value: Callable[[Sample], float]) -> float:
            return max(map(value, last)) / max(map(value, first))

        return ratio(lambda s: s.resident_mib), ratio(lambda s: s.database_mib)


def run(folder: Path, *, slots: int, say: Callable[[str], None] = lambda line: None) -> Soak:
    """Send transfers for so many slots, or until the oldest are forgotten, and look at the process all along."""
    options = ["--keep-slots", str(KEEP_SLOTS), "--keep-transactions", str(KEEP_TRANSACTIONS)]
    samples: list[Sample] = []
    with ChainProcess(folder, slot_ms=SLOT_MS, options=options) as chain:
        rpc = Rpc(chain.url, chain.ws_url)
        payer = Keypair()
        target = Keypair().pubkey()
        first = rpc.result("requestAirdrop", str(payer.pubkey()), 1_000_000 * SOL)
        sent = slot = 0
        end = time.monotonic() + 600 + slots / 5
        # A busy machine sends fewer in a slot: there must be enough that the first are no longer kept.
        while slot < slots or sent < 2 * KEEP_TRANSACTIONS:
            assert time.monotonic() < end, "the chain stands still"
            latest = rpc.result("getLatestBlockhash", CONFIRMED)
            blockhash = Hash.from_string(latest["value"]["blockhash"])
            for _ in range(20):
                sent += 1
                tx = signed([pay(payer, target, SOL // 100 + sent)], blockhash, payer)
                rpc.ask("sendTransaction", encoded(tx), {"encoding": "base64", "skipPreflight": True})
            slot = rpc.result("getSlot", CONFIRMED)
            if not samples or slot >= samples[-1].slot + slots // 60:
                samples.append(_sample(chain, folder, slot, sent))
                say(f"{samples[-1]}")
        return Soak(
            samples,
            rpc.ask("getBlock", 1),
            rpc.result("getTransaction", first),
            rpc.result("getFirstAvailableBlock"),
        )


def _sample(chain: ChainProcess, folder: Path, slot: int, sent: int) -> Sample:
    pages = int(Path(f"/proc/{chain.pid}/statm").read_text().split()[1])
    size = sum(path.stat().st_size for path in folder.glob("chain.sqlite3*"))
    resident = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return Sample(slot, sent, round(resident, 1), round(size / (1 << 20), 1))
