"""One chain on which transactions are tried: what each changed, and everything put back afterwards.

Signatures are not verified here (a run makes tens of thousands of attempts): who signs is decided by the generator,
which lets a key sign only where the adversary could hold it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from solders.account import Account
from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import ID as SYSTEM
from solders.token import ID as TOKEN
from solders.transaction import Transaction

from tests.programs.adversary.outcome import Outcome, judge
from tests.programs.chain_harness import (
    ASSOCIATED,
    AUTHORIZER,
    COORDINATOR,
    TOKEN_2022,
    TREASURER,
    Chain,
)

LAMPORTS_PER_SIGNATURE = 5000
AUDIT_EVERY = 50
UNITS = set_compute_unit_limit(1_400_000)
PROGRAMS = {
    "system program": SYSTEM,
    "token program": TOKEN,
    "token-2022 program": TOKEN_2022,
    "associated token program": ASSOCIATED,
    "coordinator program": COORDINATOR.program,
    "authorizer program": AUTHORIZER.program,
    "treasurer program": TREASURER.program,
}
SYSVARS = {
    f"sysvar {name}": Pubkey.from_string(key)
    for name, key in {
        "clock": "SysvarC1ock11111111111111111111111111111111",
        "rent": "SysvarRent111111111111111111111111111111111",
        "slot hashes": "SysvarS1otHashes111111111111111111111111111",
        "slot history": "SysvarS1otHistory11111111111111111111111111",
        "instructions": "Sysvar1nstructions1111111111111111111111111",
    }.items()
}


@dataclass(frozen=True)
class Change:
    """An account before and after an attempt; None where there is none."""

    key: Pubkey
    before: Account | None
    after: Account | None


class World:
    """A chain with every key that anybody on it uses, by name."""

    def __init__(self) -> None:
        self.chain = Chain()
        self.svm = self.chain.svm
        self.svm.with_sigverify(False)
        self.svm.with_blockhash_check(False)
        self.fee_payer = self.chain.keypair(1_000).pubkey()
        self.names: dict[Pubkey, str] = {}
        self.signers: set[Pubkey] = set()
        self.num_attempts = 0
        self.state: dict[Pubkey, Account | None] = {}

    def name(self, name: str, key: Pubkey | None) -> None:
        """Track `key`; the first name stays."""
        if key is not None and key != self.fee_payer:
            self.names.setdefault(key, name)

    def freeze(self) -> None:
        """From here on the world changes only for the length of one attempt."""
        for name, key in (PROGRAMS | SYSVARS).items():
            self.name(name, key)
        for n in range(1, self.chain.num_keys + 1):
            key = Keypair.from_seed(hashlib.sha256(n.to_bytes(8, "little")).digest()).pubkey()
            self.name(f"key {n}", key)
            if key != self.fee_payer:
                self.signers.add(key)
        self.state = {key: self.account(key) for key in self.names}

    def account(self, key: Pubkey) -> Account | None:
        """None where there is none, or one without lamports, which is the same to a program."""
        account = self.svm.get_account(key)
        return account if account is not None and account.lamports > 0 else None

    def place(self, key: Pubkey, account: Account | None) -> None:
        """Write an account past all programs; None removes it."""
        self.svm.set_account(key, account or Account(0, b"", SYSTEM, False, 0))

    def attempt(
        self, instruction: Instruction, placed: Sequence[tuple[Pubkey, Account | None]] = ()
    ) -> tuple[Outcome, list[Change]]:
        """Send it in a world in which some accounts were replaced; then restore the world.

        The outcome's damage says what no refusal and no success may do. Accounts that the instruction does not even
        name are compared every now and then, all of them: nothing would put them back.
        """
        if self.num_attempts % AUDIT_EVERY == 0:
            self.check_unchanged()
        before = {
            key: self.state[key] if key in self.state else self.account(key)
            for key in [*(m.pubkey for m in instruction.accounts), *(key for key, _ in placed)]
        }
        restore = {key: before.get(key) for key, _ in placed}
        for key, account in placed:
            self.place(key, account)
            before[key] = self.account(key)
        funds = self.svm.get_balance(self.fee_payer) or 0
        result, num_signatures = self._send(instruction)
        changes = [Change(key, was, now) for key, was in before.items() if (now := self.account(key)) != was]
        outcome = judge(result)
        paid = funds - (self.svm.get_balance(self.fee_payer) or 0)
        fee = num_signatures * LAMPORTS_PER_SIGNATURE
        moved = sum(
            (c.after.lamports if c.after else 0) - (c.before.lamports if c.before else 0) for c in changes
        )
        if paid != fee:
            outcome.damage.append(f"the fee payer paid {paid} lamports, the fee is {fee}")
        if moved:
            outcome.damage.append(f"{moved} lamports came from nowhere or are gone")
        if not outcome.accepted:
            outcome.damage += [f"refused, but {self.names.get(c.key, c.key)} changed" for c in changes]
        for change in changes:
            self.place(change.key, change.before)
        for key, account in restore.items():
            self.place(key, account)
        return outcome, changes

    def _send(self, instruction: Instruction) -> tuple[object, int]:
        message = Message.new_with_blockhash([UNITS, instruction], self.fee_payer, Hash.default())
        num_signatures = message.header.num_required_signatures
        self.num_attempts += 1
        unique = Signature(self.num_attempts.to_bytes(64, "little"))
        signatures = [unique] + [Signature.default()] * (num_signatures - 1)
        result = self.svm.send_transaction(Transaction.populate(message, signatures))
        return result, num_signatures

    def check_unchanged(self) -> None:
        """Every account of the world is as it was when the world was frozen."""
        wrong = [self.names[key] for key, account in self.state.items() if self.account(key) != account]
        assert not wrong, f"changed by a transaction that does not name it, or not restored: {wrong}"
