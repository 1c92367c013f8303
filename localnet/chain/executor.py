"""One transaction, start to end: fees, blockhash, rent, programs, and what it changed.

A transaction is run without keeping anything; what it would write is then checked and written here. So
a simulation, a preflight and the execution are the same computation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from solders.hash import Hash
from solders.instruction import CompiledInstruction
from solders.message import Message, MessageAddressTableLookup, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from localnet.chain import loader, nonce
from localnet.chain.ids import (
    ADDRESS_LOOKUP_TABLE,
    BPF_LOADER_UPGRADEABLE,
    COMPUTE_BUDGET,
    INCINERATOR,
    RESERVED,
)
from localnet.chain.message import TABLE_META_BYTES, Fees, Parsed, fees, parse
from localnet.chain.records import GONE, AccountRecord, Json
from localnet.chain.svm import Run, Svm

MAX_ACCOUNT_LOCKS = 128
ACCOUNT_BYTES = 64
"""What an account counts for besides its data where loaded sizes are summed up."""
TABLE_BYTES = 8248
FEE_ONLY = frozenset(
    ("ProgramAccountNotFound", "InvalidProgramForExecution", "MaxLoadedAccountsDataSizeExceeded")
)
"""Errors of transactions that could not be loaded and pay their fee all the same."""


@dataclass(slots=True)
class Outcome:
    """What a transaction does now, nothing of it written yet."""

    message: Parsed
    fees: Fees
    err: Json = None
    included: bool = False
    """Whether it enters a block and pays its fee; always with success, and with a program's failure."""
    logs: list[str] = field(default_factory=list)
    units: int = 0
    return_data: Json = None
    inner: list[list[Json]] = field(default_factory=list)
    loaded_writable: list[bytes] = field(default_factory=list)
    loaded_readonly: list[bytes] = field(default_factory=list)
    before: dict[bytes, AccountRecord] = field(default_factory=dict)
    after: dict[bytes, AccountRecord] = field(default_factory=dict)
    """The accounts it may write, as it leaves them (after a failure: the payer's fee, a used nonce)."""
    loaded_bytes: int = 0
    """Size of all accounts it loaded, as Solana counts it; 0 where it did not come to run."""

    @property
    def fee(self) -> int | None:
        """What it pays; None where it was not even clear who would."""
        return self.fees.total if self.err is None or self.included else None

    @property
    def keys(self) -> list[bytes]:
        return [*self.message.static_keys, *self.loaded_writable, *self.loaded_readonly]

    @property
    def changes(self) -> dict[bytes, AccountRecord]:
        return {a: r for a, r in self.after.items() if r != self.before.get(a, GONE)}


class Executor:
    """Runs transactions on a machine.

    Args:
        svm: the machine; left as it was by `run`.
        is_recent: whether a blockhash may be named now.
        slot: the current slot.
    """

    def __init__(self, svm: Svm, is_recent: Callable[[bytes], bool], slot: Callable[[], int]) -> None:
        self._svm = svm
        self._is_recent = is_recent
        self._slot = slot

    def run(self, tx: VersionedTransaction, *, verify: bool = True, any_blockhash: bool = False) -> Outcome:
        """Compute what a transaction does now; the machine is left as it was.

        Raises:
            SvmCrash: LiteSVM panicked.
        """
        message = parse(tx)
        out = Outcome(message, fees(message))
        nonce_address = None
        if not any_blockhash and not self._is_recent(message.blockhash):
            nonce_address = nonce.nonce_account(message, self._svm.get)
            if nonce_address is None:
                out.err = "BlockhashNotFound"
                return out
        out.err = self._load_addresses(out)
        if out.err is not None:
            return out
        if len(out.keys) > MAX_ACCOUNT_LOCKS:
            out.err = "TooManyAccountLocks"
            return out
        if len(set(out.keys)) != len(out.keys):
            out.err = "AccountLoadedTwice"  # LiteSVM would take them for several accounts
            return out
        out.before = {address: self._svm.get(address) for address in _writable(out)}
        payer = out.before[message.payer]
        if payer.lamports and payer.lamports < out.fees.total:
            out.err = "InsufficientFundsForFee"
            return out
        if any(loader.is_deploy(ix) for ix in message.instructions):
            run = self._run_in_parts(tx, out, verify)
        else:
            run = self._run_paying(tx, message.payer, payer, out.fees.priority, verify)
        out.logs, out.units, out.return_data = run.logs, run.units, run.return_data
        out.inner, out.err = run.inner, run.err
        out.after = {address: run.accounts.get(address, record) for address, record in out.before.items()}
        if out.err is None:
            out.err = self._rent_error(out)
        if out.err == "InvalidProgramForExecution" and self._lacks_program(message):
            out.err = "ProgramAccountNotFound"
        out.included = out.err is None or _is_included(out.err)
        if not isinstance(out.err, str):
            out.loaded_bytes = self._loaded_bytes(out)
        if out.err is not None:
            out.after = {}
        if out.err is not None and out.included:
            out.after[message.payer] = payer._replace(lamports=payer.lamports - out.fees.total)
            if nonce_address is not None:
                used = out.after.get(nonce_address, out.before[nonce_address])
                out.after[nonce_address] = nonce.advanced(used, message.blockhash)
        return out

    def _run_paying(
        self, tx: VersionedTransaction, payer: bytes, record: AccountRecord, priority: int, verify: bool
    ) -> Run:
        """Run with the priority fee taken beforehand, which LiteSVM does not know of."""
        if not priority or not record.lamports:
            return self._svm.run(tx, verify=verify)
        self._svm.put(payer, record._replace(lamports=record.lamports - priority))
        try:
            return self._svm.run(tx, verify=verify)
        finally:
            self._svm.put(payer, record)

    def _lacks_program(self, message: Parsed) -> bool:
        return any(self._svm.get(ix.program) is GONE for ix in message.instructions)

    def _loaded_bytes(self, out: Outcome) -> int:
        """All accounts that exist, the code of upgradeable programs, and a flat size for each lookup table."""
        size = TABLE_BYTES * len(out.message.lookups)
        programs = {ix.program for ix in out.message.instructions}
        for address in out.keys:
            record = self._svm.get(address)
            if record is GONE:
                continue
            size += ACCOUNT_BYTES + len(record.data)
            code = record.data[4:36]
            if address in programs and record.owner == BPF_LOADER_UPGRADEABLE and code not in out.keys:
                size += ACCOUNT_BYTES + len(self._svm.get(code).data)
        return size

    def _load_addresses(self, out: Outcome) -> Json:
        """Resolve lookup tables; an error is Solana's."""
        for table, writable, readonly in out.message.lookups:
            record = self._svm.get(table)
            if record is GONE:
                return "AddressLookupTableNotFound"
            if record.owner != ADDRESS_LOOKUP_TABLE:
                return "InvalidAddressLookupTableOwner"
            addresses = record.data[TABLE_META_BYTES:]
            if len(record.data) < TABLE_META_BYTES or len(addresses) % 32:
                return "InvalidAddressLookupTableData"
            for indices, loaded in ((writable, out.loaded_writable), (readonly, out.loaded_readonly)):
                for index in indices:
                    if (index + 1) * 32 > len(addresses):
                        return "InvalidAddressLookupTableIndex"
                    loaded.append(addresses[index * 32 : index * 32 + 32])
        return None

    def _rent_error(self, out: Outcome) -> Json:
        """No account may start to pay rent: LiteSVM checks that for accounts with data only."""
        minimum = self._svm.rent_minimum(0)
        for index, address in enumerate(out.keys):
            after = out.after.get(address)
            if after is None or after.data or after.lamports == 0 or after.lamports >= minimum:
                continue
            before = out.before[address]
            was_paying = not before.data and 0 < before.lamports < minimum
            if address != INCINERATOR and not (was_paying and after.lamports <= before.lamports):
                return {"InsufficientFundsForRent": {"account_index": index}}
        return None

    def _run_in_parts(self, tx: VersionedTransaction, out: Outcome, verify: bool) -> Run:
        """Run a transaction that deploys: the instructions between deployments in LiteSVM, those here."""
        if verify and not all(tx.verify_with_results()):
            return Run(err="SignatureFailure")
        total = Run()
        payer = out.message.payer
        paid = out.before[payer]
        if not paid.lamports:
            return Run(err="AccountNotFound")
        self._svm.put(payer, paid._replace(lamports=paid.lamports - out.fees.total))
        try:
            for indices in _parts(out.message):
                first = out.message.instructions[indices[0]]
                if loader.is_deploy(first):
                    done = loader.deploy(self._svm, first, _metas(out, first.accounts), self._slot())
                    part = Run(None, done.logs, done.units, inner=[[]])
                    if done.err is not None:
                        part.err = {"InstructionError": [0, done.err]}
                else:
                    part = self._run_part(tx, out, indices)
                if not _append(total, part, indices):
                    return total
            total.accounts = {address: self._svm.get(address) for address in out.before}
            return total
        finally:
            self._svm.put_all(out.before)

    def _run_part(self, tx: VersionedTransaction, out: Outcome, indices: list[int]) -> Run:
        """Run some of the instructions, without their fee, and keep what they wrote until the end."""
        part_tx = _sub_transaction(tx, indices)
        payer = out.message.payer
        record = self._svm.get(payer)
        fee = fees(parse(part_tx)).base
        self._svm.put(payer, record._replace(lamports=record.lamports + fee))
        part = self._svm.run(part_tx, verify=False)
        self._svm.put(payer, record)
        if part.err is None:
            self._svm.put_all({a: r for a, r in part.accounts.items() if a in out.before})
        return part


def _append(total: Run, part: Run, indices: list[int]) -> bool:
    """Add a part's result to the whole's; False when it failed."""
    total.logs += part.logs
    total.units += part.units
    total.return_data = part.return_data or total.return_data
    while len(total.inner) < indices[0]:
        total.inner.append([])
    total.inner += part.inner
    if part.err is None:
        return True
    total.err = part.err
    if isinstance(part.err, dict) and "InstructionError" in part.err:
        index, err = part.err["InstructionError"]
        total.err = {"InstructionError": [indices[min(index, len(indices) - 1)], err]}
    return False


def _parts(message: Parsed) -> list[list[int]]:
    """Instruction indices grouped so that each deployment stands alone."""
    parts: list[list[int]] = []
    alone = True
    for index, ix in enumerate(message.instructions):
        if loader.is_deploy(ix):
            parts.append([index])
            alone = True
        elif alone:
            parts.append([index])
            alone = False
        else:
            parts[-1].append(index)
    return parts


def _sub_transaction(tx: VersionedTransaction, indices: list[int]) -> VersionedTransaction:
    """The same message with some of its instructions, and the compute budget ones of the others."""
    message = tx.message
    keys = message.account_keys
    budget = Pubkey.from_bytes(COMPUTE_BUDGET)
    chosen: list[CompiledInstruction] = [message.instructions[index] for index in indices]
    extra = [
        ix
        for index, ix in enumerate(message.instructions)
        if index not in indices and keys[ix.program_id_index] == budget
    ]
    header = message.header
    blockhash: Hash = message.recent_blockhash
    part: Message | MessageV0
    if isinstance(message, MessageV0):
        lookups: list[MessageAddressTableLookup] = list(message.address_table_lookups)
        part = MessageV0(header, keys, blockhash, [*chosen, *extra], lookups)
    else:
        part = Message.new_with_compiled_instructions(
            header.num_required_signatures,
            header.num_readonly_signed_accounts,
            header.num_readonly_unsigned_accounts,
            keys,
            blockhash,
            [*chosen, *extra],
        )
    return VersionedTransaction.populate(part, tx.signatures)


def _metas(out: Outcome, accounts: bytes) -> list[loader.Meta]:
    keys = out.keys
    return [
        loader.Meta(keys[i], i < out.message.num_signers, keys[i] in out.before)
        for i in accounts
        if i < len(keys)
    ]


def _writable(out: Outcome) -> list[bytes]:
    static = [k for i, k in enumerate(out.message.static_keys) if out.message.static_writable(i)]
    writable = [key for key in (*static, *out.loaded_writable) if key not in RESERVED]
    return writable if out.message.payer in writable else [out.message.payer, *writable]


def _is_included(err: Json) -> bool:
    if isinstance(err, str):
        return err in FEE_ONLY
    return isinstance(err, dict) and ("InstructionError" in err or "InsufficientFundsForRent" in err)
