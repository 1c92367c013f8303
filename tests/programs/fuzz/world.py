"""The real thing: a LiteSVM with the three programs, which does the transactions that the fuzzer recorded."""

import hashlib
from dataclasses import dataclass
from typing import Any

from solders.account import Account as ChainAccount
from solders.clock import Clock
from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.system_program import CreateAccountParams, TransferParams, create_account, transfer
from solders.transaction import Transaction
from solders.transaction_metadata import FailedTransactionMetadata
from solders.transaction_status import InstructionErrorCustom

from tests.programs.borsh_idl import Idl
from tests.programs.chain_harness import ANCHOR_ERRORS, AUTHORIZER, COORDINATOR, PROGRAMS, TREASURER
from tests.programs.fuzz.model import FIXED_ACCOUNTS, IDLS, Model
from tests.programs.fuzz.names import Keyring, is_tracked, token_program

PROGRAM_BYTES = {
    name: (PROGRAMS / f"{name}.so").read_bytes() for name in ("coordinator", "authorizer", "treasurer")
}
UNITS = set_compute_unit_limit(1_400_000)
TOKEN_OPS = {
    # tag, accounts (writable ones marked), how the arguments follow
    "token.mint_to": (7, ["mint*", "to*", "authority!"]),
    "token.transfer": (3, ["from*", "to*", "authority!"]),
    "token.freeze": (10, ["account*", "mint", "authority!"]),
    "token.thaw": (11, ["account*", "mint", "authority!"]),
    "token.set_owner": (6, ["account*", "authority!"]),
    "token.close": (9, ["account*", "to*", "authority!"]),
}
FAULTS = ("ProgramFailedToComplete", "ComputationalBudgetExceeded", "MaxInstructionTraceLength", "panicked")
"""Words that no error may contain: the program gave up instead of refusing."""


@dataclass
class Outcome:
    """What a transaction did: an error's name or nothing, where, and its logs."""

    error: str
    at: int
    logs: list[str]
    units: int


class World:
    """A chain of its own, filled with what the model starts from."""

    def __init__(self, programs: dict[str, bytes] | None = None) -> None:
        self.keys = Keyring()
        self.svm = LiteSVM().with_sigverify(False).with_blockhash_check(False).with_transaction_history(0)
        for name, code in (programs or PROGRAM_BYTES).items():
            self.svm.add_program(IDLS[name].program, code)
        self.blockhash = self.svm.latest_blockhash()

    def begin(self, model: Model) -> None:
        """Empty every account that was ever named, then fill in what the model starts from."""
        nothing = ChainAccount(0, b"", self.keys.key("SYSTEM"))
        for name in model.keys.names():
            if is_tracked(name):
                self.svm.set_account(self.keys.key(name), nothing)
        self.keys = model.keys
        for name, account in model.accounts.items():
            data = account.data.pack(self.keys) if account.data is not None else b""  # type: ignore[union-attr]
            owner = self.keys.key(account.owner)
            self.svm.set_account(self.keys.key(name), ChainAccount(account.lamports, data, owner))

    def set_clock(self, now: int, slot: int) -> bytes:
        """Move the clock; returns the newest slot's hash."""
        clock = self.svm.get_clock()
        self.svm.set_clock(
            Clock(slot, clock.epoch_start_timestamp, clock.epoch, clock.leader_schedule_epoch, now)
        )
        newest = hashlib.sha256(f"slot {slot}".encode()).digest()
        self.svm.set_slot_hashes([(slot, Hash(newest)), (max(slot - 1, 0), Hash.default())])
        return newest

    def send(self, tx: dict[str, Any]) -> Outcome:
        """Do a transaction."""
        instructions = [UNITS, *(self.build(op) for op in tx["ops"])]
        message = Message.new_with_blockhash(instructions, self.keys.key(tx["payer"]), self.blockhash)
        result = self.svm.send_transaction(Transaction.new_unsigned(message))
        if not isinstance(result, FailedTransactionMetadata):
            return Outcome("", -1, result.logs(), result.compute_units_consumed())
        meta = result.meta()
        logs, cause = meta.logs(), result.err()
        at = getattr(cause, "index", 0) - 1
        return Outcome(error_name(cause, logs), at, logs, meta.compute_units_consumed())

    def account(self, name: str) -> ChainAccount | None:
        """An account as it is on the chain, or None if it is nobody's."""
        found = self.svm.get_account(self.keys.key(name))
        return found if found is not None and found.lamports else None

    # instructions

    def build(self, op: dict[str, Any]) -> Instruction:
        """The instruction of a recorded operation."""
        program, _, name = op["ix"].partition(".")
        acc = op["acc"]
        if program in IDLS:
            return self._anchor(IDLS[program], name, op)
        unsigned = op.get("unsigned", ())
        if program == "system":
            return self._system(name, acc, op["args"], unsigned)
        if program == "ata":
            metas = [
                AccountMeta(self.keys.key(acc["payer"]), "payer" not in unsigned, True),
                AccountMeta(self.keys.key(acc["account"]), False, True),
                *(self._meta(n) for n in (acc["owner"], acc["mint"], "SYSTEM", token_program(acc["mint"]))),
            ]
            return Instruction(self.keys.key("ASSOCIATED"), b"\x01", metas)
        tag, roles = TOKEN_OPS[op["ix"]]
        metas = []
        for role in roles:
            account = role.rstrip("*!")
            signs = role.endswith("!") and account not in unsigned
            metas.append(AccountMeta(self.keys.key(acc[account]), signs, role.endswith("*")))
        data = bytes([tag])
        if "amount" in op.get("args", {}):
            data += op["args"]["amount"].to_bytes(8, "little")
        elif "owner" in op.get("args", {}):
            data += b"\x02\x01" + self.keys.raw(op["args"]["owner"])
        return Instruction(self.keys.key(token_program(acc["mint"])), data, metas)

    def _meta(self, name: str) -> AccountMeta:
        return AccountMeta(self.keys.key(name), False, False)

    def _system(self, name: str, acc: dict[str, str], args: dict[str, Any], unsigned: Any) -> Instruction:
        source = self.keys.key(acc["from"])
        if name == "transfer":
            params = TransferParams(
                from_pubkey=source, to_pubkey=self.keys.key(acc["to"]), lamports=args["lamports"]
            )
            ix = transfer(params)
        else:
            ix = create_account(
                CreateAccountParams(
                    from_pubkey=source,
                    to_pubkey=self.keys.key(acc["new"]),
                    lamports=args["lamports"],
                    space=args["space"],
                    owner=COORDINATOR.program,
                )
            )
        if not unsigned:
            return ix
        roles = ("from", "to") if name == "transfer" else ("from", "new")
        metas = [
            AccountMeta(meta.pubkey, meta.is_signer and role not in unsigned, meta.is_writable)
            for meta, role in zip(ix.accounts, roles, strict=True)
        ]
        return Instruction(ix.program_id, ix.data, metas)

    def _anchor(self, idl: Idl, name: str, op: dict[str, Any]) -> Instruction:
        ix, acc, args = idl.instructions[name], op["acc"], op.get("args", {})
        unsigned = op.get("unsigned", ())
        metas = []
        for a in ix["accounts"]:
            role = a["name"]
            named = acc.get(role) or FIXED_ACCOUNTS.get(role)
            key = self.keys.key(named) if named else idl.program
            signs = a.get("signer", False) and role not in unsigned
            metas.append(AccountMeta(key, signs, a.get("writable", False) and named is not None))
        data = bytes(ix["discriminator"]) + b"".join(
            idl.encode(a["type"], self._value(idl, a["type"], args[a["name"]])) for a in ix["args"]
        )
        return Instruction(idl.program, data, metas)

    def _value(self, idl: Idl, kind: Any, value: Any) -> Any:
        """An argument out of JSON: names become keys, hexadecimal text becomes bytes."""
        if kind == "pubkey":
            return self.keys.raw(value)
        if kind == "bytes" or (isinstance(kind, dict) and kind.get("array", [""])[0] == "u8"):
            return bytes.fromhex(value)
        if isinstance(kind, str) or "array" in kind:
            return value
        if "vec" in kind:
            return [self._value(idl, kind["vec"], v) for v in value]
        defined = idl.types[kind["defined"]["name"]]
        if defined["kind"] == "struct":
            return {f["name"]: self._value(idl, f["type"], value[f["name"]]) for f in defined["fields"]}
        variant, fields = value
        chosen = next(v for v in defined["variants"] if v["name"] == variant)
        resolved = {
            f["name"]: self._value(idl, f["type"], fields[f["name"]]) for f in chosen.get("fields", [])
        }
        return variant, resolved


def error_name(cause: Any, logs: list[str]) -> str:
    """The error's name, by the program that failed first; otherwise the runtime's words."""
    inner = getattr(cause, "err", None)
    if not isinstance(inner, InstructionErrorCustom):
        word = str(inner if inner is not None else cause)
        return word.rpartition(".")[2]
    failing = next((line.split()[1] for line in logs if " failed: custom program error" in line), "")
    for idl in (COORDINATOR, AUTHORIZER, TREASURER):
        if failing == str(idl.program):
            return idl.errors.get(inner.code) or ANCHOR_ERRORS.get(inner.code, f"Anchor{inner.code}")
    short = {"1111": "System", "Toke": "Token", "ATok": "Ata"}.get(failing[:4], failing)
    return f"{short}{inner.code}"
