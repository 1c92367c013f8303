"""The coordinator, authorizer and treasurer in one LiteSVM, as a chain that has only the present.

Loading the programs takes longer than a schedule, so a process has one machine and wipes what a schedule
wrote. Signatures and blockhashes are not checked: they are not what is simulated here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from solders.account import Account
from solders.clock import Clock
from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.instruction import Instruction
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import Transaction
from solders.transaction_metadata import FailedTransactionMetadata

from psyche_chain.chain import ids
from psyche_chain.chain.failure import explain
from psyche_chain.chain.programs import elf_path
from psyche_chain.chain.queries import Account as Found
from psyche_chain.errors import PsycheError

MAX_UNITS = 1_400_000
_PROGRAMS = {
    "coordinator": ids.COORDINATOR_ID,
    "authorizer": ids.AUTHORIZER_ID,
    "treasurer": ids.TREASURER_ID,
}


class Machine:
    """Accounts and programs; transactions are carried out at once and one after the other."""

    def __init__(self) -> None:
        self._svm = LiteSVM()
        self._svm.with_sigverify(False)
        self._svm.with_blockhash_check(False)
        self._svm.with_transaction_history(0)
        for name, key in _PROGRAMS.items():
            self._svm.add_program(key, elf_path(name).read_bytes())
        self._written: dict[Pubkey, None] = {}
        self._limit = set_compute_unit_limit(MAX_UNITS)

    def wipe(self) -> None:
        """Forget every account that a transaction or `airdrop` wrote."""
        for key in self._written:
            self._svm.set_account(key, Account(0, b"", ids.SYSTEM_ID))
        self._written.clear()

    def set_time(self, slot: int, unix_s: int) -> None:
        """Begin a slot; its hash is a function of its number."""
        self._svm.set_clock(Clock(slot, 0, 0, 1, unix_s))
        self._svm.set_slot_hashes([(slot, Hash(hashlib.sha256(b"slot %d" % slot).digest()))])

    def airdrop(self, key: Pubkey, lamports: int) -> None:
        """Set what a wallet holds."""
        self.set_account(key, Account(lamports, b"", ids.SYSTEM_ID))

    def set_account(self, key: Pubkey, account: Account) -> None:
        """Write an account out of nowhere."""
        self._written[key] = None
        self._svm.set_account(key, account)

    def rent(self, size: int) -> int:
        """Lamports that an account of `size` bytes must hold."""
        return self._svm.minimum_balance_for_rent_exemption(size)

    def account(self, key: Pubkey) -> Found | None:
        """The account at an address."""
        found = self._svm.get_account(key)
        if found is None or found.lamports == 0:
            return None
        return Found(key, found.owner, found.lamports, bytes(found.data), 0)

    def send(self, instructions: Sequence[Instruction], payer: Pubkey, label: str) -> None:
        """Carry out a transaction.

        Raises:
            PsycheError: it was refused, as the real sender would say it.
        """
        for instruction in instructions:
            for meta in instruction.accounts:
                if meta.is_writable:
                    self._written[meta.pubkey] = None
        self._written[payer] = None
        message = Message.new_with_blockhash([self._limit, *instructions], payer, Hash.default())
        result = self._svm.send_transaction(Transaction.new_unsigned(message))
        if isinstance(result, FailedTransactionMetadata):
            raise self._error(result, instructions, payer, label)

    def _error(
        self,
        result: FailedTransactionMetadata,
        instructions: Sequence[Instruction],
        payer: Pubkey,
        label: str,
    ) -> PsycheError:
        err: Any = json.loads(result.to_json())["err"]
        return explain(
            err,
            instructions=[self._limit, *instructions],
            logs=result.meta().logs(),
            label=label,
            payer=str(payer),
        )


@cache
def machine() -> Machine:
    """The machine of this process."""
    return Machine()
