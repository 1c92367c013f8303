"""The model: what every transaction must do to every account.

`Model.apply` takes a transaction as the fuzzer recorded it and says whether it must succeed. What instructions do is
in `coordinator`, `treasurer` and `outside`, one function each, found by the instruction's name. (That a wallet must
keep its rent is a rule of validators that LiteSVM does not have, so it is not here either.)
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.programs.chain_harness import AUTHORIZER, COORDINATOR, TREASURER
from tests.programs.fuzz.accounts import OWNERS, Account, Mint, Record, Token
from tests.programs.fuzz.log import Log
from tests.programs.fuzz.names import NUM_MINTS, Keyring, token_program
from tests.programs.fuzz.packing import rent
from tests.programs.fuzz.rules import Refuse, need

FEE = 5000
FIXED_ACCOUNTS = {
    "system_program": "SYSTEM",
    "slot_hashes": "SLOT_HASHES",
    "instructions": "INSTRUCTIONS",
    "coordinator_program": "COORDINATOR",
    "associated_token_program": "ASSOCIATED",
}
IDLS = {"coordinator": COORDINATOR, "treasurer": TREASURER, "authorizer": AUTHORIZER}
WEALTH = 50 * 10**9
"""Lamports of everybody at the start."""


@dataclass
class Call:
    """One instruction with its place in the transaction."""

    accounts: dict[str, str]
    args: dict[str, Any]
    signers: set[str]
    is_last: bool

    def __getitem__(self, name: str) -> str:
        return self.accounts[name]


Handler = Callable[["Model", Call], None]
HANDLERS: dict[str, Handler] = {}


def handles(name: str) -> Callable[[Handler], Handler]:
    """Registers what an instruction does."""

    def register(handler: Handler) -> Handler:
        HANDLERS[name] = handler
        return handler

    return register


@dataclass
class Expected:
    """What a transaction must do; `name` is the likely error, `at` the instruction that fails."""

    ok: bool
    name: str = ""
    at: int = -1


def signers_of(tx: dict[str, Any]) -> set[str]:
    """Everybody who signs a transaction."""
    found = {tx["payer"]}
    for op in tx["ops"]:
        unsigned = op.get("unsigned", ())
        for account in signer_accounts(op["ix"]):
            name = op["acc"].get(account)
            if name is not None and account not in unsigned:
                found.add(name)
    return found


def signer_accounts(name: str) -> list[str]:
    """Accounts that sign an instruction."""
    if name in OUTSIDE_SIGNERS:
        return OUTSIDE_SIGNERS[name]
    program, _, ix = name.partition(".")
    found = _SIGNERS.get(name)
    if found is None:
        accounts = IDLS[program].instructions[ix]["accounts"]
        found = _SIGNERS[name] = [a["name"] for a in accounts if a.get("signer")]
    return found


_SIGNERS: dict[str, list[str]] = {}
SIGNS_WHERE_IT_PAYS = {("ata.create", "payer")}
"""Signatures that only a transfer asks for, not the instruction: somebody else may have given the lamports."""
OUTSIDE_SIGNERS = {
    "system.transfer": ["from"],
    "system.create": ["from", "new"],
    "token.mint_to": ["authority"],
    "token.transfer": ["authority"],
    "token.freeze": ["authority"],
    "token.thaw": ["authority"],
    "token.set_owner": ["authority"],
    "token.close": ["authority"],
    "ata.create": ["payer"],
}


class Model:
    """All accounts of a world, the clock, and the sums that must hold."""

    def __init__(self, people: list[str], keys: Keyring) -> None:
        self.keys = keys
        self.accounts: dict[str, Account] = {name: Account(WEALTH) for name in people}
        for i in range(NUM_MINTS):
            mint = Mint(0, "issuer", "issuer" if i != 2 else "")
            self.accounts[f"m{i}"] = Account(rent(82), token_program(f"m{i}"), mint)
        self.now = 0
        self.slot = 0
        self.slot_hash = bytes(32)
        self.fees = 0
        self.touched: set[str] = set()
        self.ledgers: dict[tuple[str, int], dict[str, int]] = {}
        """Who was credited what in the runs that ended, by log and creation slot."""
        self.payouts: dict[str, int] = {}
        """Units that each pool paid, withdrew or was given: `paid/<pool>`, `out/<pool>`, `in/<vault>`."""

    def total(self) -> int:
        """Lamports of all accounts and the fees that were burnt."""
        return self.fees + sum(a.lamports for a in self.accounts.values())

    # transactions

    def apply(self, tx: dict[str, Any]) -> Expected:
        """Do a transaction, or nothing but its fee."""
        signers = signers_of(tx)
        self.touched = {tx["payer"]}
        for op in tx["ops"]:
            self.touched.update(name for name in op["acc"].values() if name)
        fee = FEE * len(signers)
        self.fees += fee
        self.accounts[tx["payer"]].lamports -= fee
        # a single instruction refuses before it changes anything, unless its payer cannot pay
        undo = len(tx["ops"]) > 1 or not self.can_pay(tx["ops"][0]["acc"].get("payer", tx["payer"]))
        saved = self._save() if undo else b""
        for at, op in enumerate(tx["ops"]):
            try:
                self._call(op, signers, at == len(tx["ops"]) - 1)
            except Refuse as refusal:
                if undo:
                    self._restore(saved)
                return Expected(False, refusal.name, at)
        for name in self.touched:
            account = self.accounts.get(name)
            if account is not None and account.lamports == 0:
                del self.accounts[name]
        return Expected(True)

    def _save(self) -> bytes:
        touched = {n: self.accounts.get(n) for n in self.touched}
        return pickle.dumps((touched, self.payouts, self.ledgers), -1)

    def _restore(self, saved: bytes) -> None:
        accounts, self.payouts, self.ledgers = pickle.loads(saved)
        for name, account in accounts.items():
            if account is None:
                self.accounts.pop(name, None)
            else:
                self.accounts[name] = account

    def _call(self, op: dict[str, Any], signers: set[str], is_last: bool) -> None:
        call = Call(op["acc"], op.get("args", {}), signers, is_last)
        for account in signer_accounts(op["ix"]):
            if (op["ix"], account) not in SIGNS_WHERE_IT_PAYS:
                need(call.accounts[account] in signers, "AccountNotSigner")
        for account, fixed in FIXED_ACCOUNTS.items():
            need(call.accounts.get(account, fixed) == fixed)
        HANDLERS[op["ix"]](self, call)

    # accounts

    def record(self, name: str, kind: str) -> Record:
        """The data of a Borsh account, or a refusal."""
        account = self.accounts.get(name)
        need(account is not None)
        assert account is not None
        need(account.owner == OWNERS[kind] and isinstance(account.data, Record))
        assert isinstance(account.data, Record)
        need(account.data.kind == kind)
        return account.data

    def log(self, name: str) -> Log:
        """The log in an account, or a refusal."""
        account = self.accounts.get(name)
        need(account is not None and isinstance(account.data, Log), "WrongRunState")
        assert account is not None
        assert isinstance(account.data, Log)
        return account.data

    def token(self, name: str, program: str) -> Token:
        """A token account of a token program, or a refusal."""
        account = self.accounts.get(name)
        need(account is not None)
        assert account is not None
        need(isinstance(account.data, Token) and account.owner == program)
        assert isinstance(account.data, Token)
        return account.data

    def same(self, name: str, derived: str) -> bool:
        """Whether two names are the same address."""
        try:
            return name == derived or self.keys.raw(name) == self.keys.raw(derived)
        except KeyError:
            return False

    def is_unused(self, name: str) -> bool:
        """Whether an address is nobody's yet; lamports may lie there."""
        account = self.accounts.get(name)
        return account is None or (account.owner == "SYSTEM" and account.data is None)

    def can_pay(self, name: str) -> bool:
        """Whether an account is a wallet with more lamports than any instruction asks for."""
        account = self.accounts.get(name)
        return account is not None and account.data is None and account.lamports > 10**9

    def pay_rent(self, name: str, size: int, payer: str) -> None:
        """Let a payer bring what an account's rent lacks."""
        here = self.accounts.get(name)
        missing = max(rent(size) - (here.lamports if here else 0), 0)
        if missing:
            wallet = self.accounts.get(payer)
            need(wallet is not None and wallet.owner == "SYSTEM" and wallet.data is None)
            assert wallet is not None
            need(wallet.lamports >= missing)
            wallet.lamports -= missing
        if here is None:
            here = self.accounts[name] = Account(0)
        here.lamports += missing

    def create(self, name: str, data: Any, owner: str, payer: str) -> None:
        """Make an account at an unused address."""
        self.pay_rent(name, data.size, payer)
        account = self.accounts[name]
        account.owner, account.data = owner, data

    def close(self, name: str, recipient: str) -> None:
        """End an account; its lamports go to the recipient."""
        account = self.accounts[name]
        self.touched.add(recipient)
        if recipient not in self.accounts:
            self.accounts[recipient] = Account(0)
        self.accounts[recipient].lamports += account.lamports
        account.lamports, account.owner, account.data = 0, "SYSTEM", None

    def count(self, what: str, amount: int) -> None:
        """Add to one of the sums that must hold."""
        self.payouts[what] = self.payouts.get(what, 0) + amount
