"""A run as its transactions on a chain tell it, read with nothing but the IDLs and plain JSON-RPC.

Members' logs, the client's decoding and `RunState` are not asked: what they say is compared with this.
"""

from __future__ import annotations

import json
import struct
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import base58
from solders.pubkey import Pubkey

from psyche_train.records import GENESIS, Accepted, RoundRecord
from tests.programs.borsh_idl import Idl

PROGRAMS = Path(__file__).resolve().parents[2] / "psyche_chain/programs"
PAGE = 1000


def call(url: str, method: str, *params: Any) -> Any:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found = json.load(answer)
    assert "error" not in found, f"{method}: {found}"
    return found["result"]


@dataclass(slots=True)
class Ledger:
    """What happened, oldest first."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    commits: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """(round, slot) to the hash that was committed."""
    signers: dict[str, set[str]] = field(default_factory=dict)
    """Instruction of the coordinator to the wallets that signed it."""

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for found, event in self.events if found == name]

    def records(self, spec_hash: bytes) -> list[RoundRecord]:
        """The rounds as events and commitments give them."""
        opened = {event["round"]: event for event in self.named("RoundOpened")}
        joined = {event["slot"]: event for event in self.named("Joined")}
        found = []
        for event in self.named("RoundClosed"):
            number = event["round"]
            bits = int.from_bytes(event["accepted"], "little")
            accepted = tuple(
                Accepted(slot, joined[slot]["tier"], joined[slot]["weight"], self.commits[number, slot])
                for slot in range(256)
                if bits >> slot & 1
            )
            opening = opened[number]
            found.append(
                RoundRecord(
                    event["epoch"],
                    number,
                    event["step"],
                    event["trained"],
                    opening["seed"],
                    opening["data_index"],
                    opening["samples"],
                    event["assigned"],
                    spec_hash,
                    accepted,
                )
            )
        return found

    def histories(self, spec_hash: bytes) -> list[tuple[bytes, bytes]]:
        """For each closed round: the history that the program told, and the one computed here."""
        history, found = GENESIS, []
        for record, event in zip(self.records(spec_hash), self.named("RoundClosed"), strict=True):
            history = record.next_history(history)
            found.append((event["history"], history))
        return found


def transactions(url: str, address: str) -> list[dict[str, Any]]:
    """All successful transactions that name an address, oldest first."""
    signatures: list[str] = []
    while True:
        config: dict[str, Any] = {"limit": PAGE, "commitment": "confirmed"}
        if signatures:
            config["before"] = signatures[-1]
        page = call(url, "getSignaturesForAddress", address, config)
        signatures += [entry["signature"] for entry in page]
        if len(page) < PAGE:
            break
    config = {"encoding": "json", "commitment": "confirmed", "maxSupportedTransactionVersion": 0}
    found = [call(url, "getTransaction", signature, config) for signature in reversed(signatures)]
    assert all(found), "a transaction that is listed is not there"
    return [one for one in found if one["meta"]["err"] is None]


def read_ledger(url: str, run_state: Pubkey) -> Ledger:
    """Everything that the run's log went through; claims and administration name it too."""
    coordinator, treasurer = (Idl(PROGRAMS / f"{name}.json") for name in ("coordinator", "treasurer"))
    names = {bytes(ix["discriminator"]): name for name, ix in coordinator.instructions.items()}
    ledger = Ledger()
    for one in transactions(url, str(run_state)):
        for idl in (coordinator, treasurer):
            ledger.events += idl.decode_events(one["meta"]["logMessages"])
        message = one["transaction"]["message"]
        keys = message["accountKeys"]
        for ix in message["instructions"]:
            if keys[ix["programIdIndex"]] != str(coordinator.program):
                continue
            data = base58.b58decode(ix["data"])
            name = names[data[:8]]
            signed = keys[: message["header"]["numRequiredSignatures"]]
            ledger.signers.setdefault(name, set()).update(signed)
            if name == "commit":
                slot, number = struct.unpack_from("<HQ", data, 8)
                ledger.commits[number, slot] = data[18:50]
    return ledger
