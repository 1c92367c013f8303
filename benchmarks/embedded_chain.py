"""Transactions a second of the embedded chain, as its clients see them.

`python -m benchmarks.embedded_chain` starts a chain in a process of its own and sends it signed transfers in
several ways. Each transfer counts when its answer came, which is when it is durable. The ways take turns for
`--rounds` rounds, so that a machine that is busy for a while is so for all of them; the ratios are medians over
rounds of each way's rate to the first one's rate in the same round. Memory is the server's resident set.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from localnet.chain.process import ChainProcess

SOL = 1_000_000_000


class Sender:
    """One client over one kept connection."""

    def __init__(self, chain: ChainProcess) -> None:
        self._connection = http.client.HTTPConnection(chain.host, chain.port, timeout=60)
        self.payer = Keypair()
        self._num_sent = 0
        self.call("requestAirdrop", str(self.payer.pubkey()), 1_000_000 * SOL)

    def post(self, body: object) -> object:
        """The parsed answer to a request or a batch."""
        headers = {"content-type": "application/json"}
        self._connection.request("POST", "/", json.dumps(body).encode(), headers)
        return json.loads(self._connection.getresponse().read())

    def call(self, method: str, *params: object) -> object:
        """The result of one request.

        Raises:
            RuntimeError: the chain refused it.
        """
        return result(self.post(request(method, *params)))

    def transfers(self, count: int) -> list[str]:
        """Signed transfers with a fresh blockhash, all different."""
        latest = self.call("getLatestBlockhash", {"commitment": "confirmed"})
        blockhash = Hash.from_string(latest["value"]["blockhash"])  # type: ignore[index]
        return [self._transfer(blockhash) for _ in range(count)]

    def _transfer(self, blockhash: Hash) -> str:
        self._num_sent += 1
        params = TransferParams(
            from_pubkey=self.payer.pubkey(), to_pubkey=self.payer.pubkey(), lamports=self._num_sent
        )
        message = Message.new_with_blockhash([transfer(params)], self.payer.pubkey(), blockhash)
        return b64encode(bytes(VersionedTransaction(message, [self.payer]))).decode()

    def close(self) -> None:
        self._connection.close()


def request(method: str, *params: object) -> dict[str, object]:
    """A JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}


def result(answer: object) -> object:
    """The result of an answer; RuntimeError where it holds an error."""
    if not isinstance(answer, dict) or "result" not in answer:
        raise RuntimeError(f"the chain refused a request: {answer}")
    return answer["result"]


def send_request(tx: str, *, preflight: bool) -> dict[str, object]:
    """The request that sends a transaction."""
    options = {"encoding": "base64", "skipPreflight": not preflight, "preflightCommitment": "confirmed"}
    return request("sendTransaction", tx, options)


@dataclass(frozen=True)
class Way:
    """A way to send `count` transfers; returns the seconds it took."""

    name: str
    run: Callable[[list[Sender], int], float]


def _one_by_one(senders: list[Sender], count: int, *, preflight: bool) -> float:
    """All senders at once, each with its share, one after another."""
    share = count // len(senders)
    prepared = [sender.transfers(share) for sender in senders]
    failed: list[Exception] = []

    def work(sender: Sender, transfers: list[str]) -> None:
        try:
            for tx in transfers:
                result(sender.post(send_request(tx, preflight=preflight)))
        except Exception as exc:
            failed.append(exc)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(senders, prepared, strict=True)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    if failed:
        raise failed[0]
    return seconds


def _batches(senders: list[Sender], count: int, *, size: int) -> float:
    """One sender, several requests in each HTTP request."""
    sender = senders[0]
    transfers = sender.transfers(count)
    start = time.perf_counter()
    for at in range(0, count, size):
        batch = [send_request(tx, preflight=True) for tx in transfers[at : at + size]]
        answers = sender.post(batch)
        if not isinstance(answers, list):
            raise RuntimeError(f"the chain refused a batch: {answers}")
        for answer in answers:
            result(answer)
    return time.perf_counter() - start


def _reads(senders: list[Sender], count: int) -> float:
    sender = senders[0]
    start = time.perf_counter()
    for _ in range(count):
        sender.call("getBalance", str(sender.payer.pubkey()))
    return time.perf_counter() - start


def ways(num_clients: int, batch: int) -> list[Way]:
    """What is measured; the first one is what the others are compared with."""
    return [
        Way("one client", lambda s, n: _one_by_one(s[:1], n, preflight=True)),
        Way("one client, no preflight", lambda s, n: _one_by_one(s[:1], n, preflight=False)),
        Way(f"{num_clients} clients", lambda s, n: _one_by_one(s, n, preflight=True)),
        Way(f"{num_clients} clients, no preflight", lambda s, n: _one_by_one(s, n, preflight=False)),
        Way(f"batches of {batch}", lambda s, n: _batches(s, n, size=batch)),
        Way("getBalance, one client", _reads),
    ]


def resident_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def measure(rounds: int, count: int, num_clients: int, batch: int, state_dir: Path) -> dict[str, object]:
    """Rates by way and round, as the command prints them."""
    measured = ways(num_clients, batch)
    rates: dict[str, list[float]] = {way.name: [] for way in measured}
    with ChainProcess(state_dir) as chain:
        assert chain.pid is not None
        senders = [Sender(chain) for _ in range(num_clients)]
        for way in measured:
            way.run(senders, num_clients * 2)  # warm
        for _ in range(rounds):
            for way in measured:
                rates[way.name].append(count / way.run(senders, count))
        resident = resident_mib(chain.pid)
        for sender in senders:
            sender.close()
    first = rates[measured[0].name]
    table = {
        name: {
            "per_second": round(statistics.median(values), 1),
            "lowest": round(min(values), 1),
            "highest": round(max(values), 1),
            "ratio": round(statistics.median(v / f for v, f in zip(values, first, strict=True)), 2),
        }
        for name, values in rates.items()
    }
    return {"rounds": rounds, "transactions": count, "resident_mib": round(resident, 1), "ways": table}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded_chain", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transactions", type=int, default=400, help="in each round, of each way")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--state-dir", type=Path, default=None, help="on the disk to be measured")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.state_dir) as folder:
        found = measure(args.rounds, args.transactions, args.clients, args.batch, Path(folder))
    if args.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'':34}{'a second':>10}{'lowest':>10}{'highest':>10}{'ratio':>8}")
    for name, row in found["ways"].items():  # type: ignore[attr-defined]
        figures = f"{row['per_second']:>10}{row['lowest']:>10}{row['highest']:>10}{row['ratio']:>8}"
        print(f"{name:34}{figures}")
    print(f"server's resident memory: {found['resident_mib']} MiB")


if __name__ == "__main__":
    main()
