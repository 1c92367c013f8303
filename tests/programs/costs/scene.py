"""Acting on a chain while every transaction is written into the table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.programs.chain_harness import (
    ASSOCIATED,
    AUTHORIZER,
    COORDINATOR,
    JOIN_SCOPE,
    TOKEN,
    TREASURER,
    Chain,
    Grant,
    Member,
    Receipt,
    Run,
    bitmap,
    commitment,
)
from tests.programs.costs.table import Table

IDLS = {"authorizer": AUTHORIZER, "coordinator": COORDINATOR, "treasurer": TREASURER}
LONG_CONTACT = "x" * 128
LONG_URI = "x" * 128
LONG_TEXTS = {"name": "x" * 64, "description": "x" * 280, "min_client_version": "x" * 32}


def first_try(program: Pubkey, *seeds: bytes | Pubkey) -> Pubkey | None:
    """The address with these seeds if the very first try, bump 255, gives it: then looking for it costs least."""
    key, bump = Pubkey.find_program_address([bytes(s) for s in seeds], program)
    return key if bump == 255 else None


def token_account(owner: Pubkey, mint: Pubkey) -> Pubkey | None:
    return first_try(ASSOCIATED, owner, TOKEN, mint)


class Scene:
    """A run with room for `capacity` members, a table that notes what each transaction costs, and lucky keys.

    Every key is chosen so that each address made of it is found at the first try: figures then depend on
    the programs only. Who signs pays, as with the client; members have a hot key besides their wallet.
    """

    def __init__(self, table: Table, capacity: int, *, pool: bool = False, closed: bool = False) -> None:
        self.table, self.capacity = table, capacity
        self.chain = Chain()
        # what a client sends: limit and price
        self.chain.budget = [set_compute_unit_limit(1_400_000), set_compute_unit_price(1)]
        self.run_id = "r" * 32
        self.issuer = self.chain.keypair()
        self.join_authority = self.chain.keypair() if closed else None
        self.mint = self.chain.mint(self.issuer) if pool else None
        creator, log = self.key(self._makes_run), self.key(self._makes_pool)
        joining = {"join_authority": self.join_authority.pubkey()} if self.join_authority else {}
        self.run = Run(self.chain, self.run_id, capacity, mint=self.mint, creator=creator, log=log, **joining)
        self.members: list[Member] = []

    def key(self, wanted: Callable[[Pubkey], object]) -> Keypair:
        """A fresh key that is `wanted`."""
        while not wanted((key := self.chain.fresh_key()).pubkey()):
            pass
        return key

    def _makes_run(self, creator: Pubkey) -> object:
        run = first_try(COORDINATOR.program, b"run", creator, self.run_id.encode())
        return run and first_try(COORDINATOR.program, b"spec", run)

    def _makes_pool(self, log: Pubkey) -> object:
        pool = first_try(TREASURER.program, b"pool", log)
        return pool and (self.mint is None or token_account(pool, self.mint))

    def _makes_member(self, wallet: Pubkey) -> object:
        run = self.run
        if not first_try(COORDINATOR.program, b"member", run.log.pubkey(), wallet):
            return False
        return self.mint is None or (
            first_try(TREASURER.program, b"claim", run.pool, wallet) and token_account(wallet, self.mint)
        )

    def new_member(self, tier: int = 0, weight: int = 1) -> Member:
        member = self.run.member(tier, weight)
        member.wallet = self.key(self._makes_member)
        for key in (member.wallet, member.hot_key):
            self.chain.svm.airdrop(key.pubkey(), 10**9)
        return member

    def grant(self) -> Grant:
        """An authorization of the run's join authority, not created yet."""
        assert self.join_authority is not None
        grantor = self.join_authority
        seeds = (b"authorization", grantor.pubkey())
        grantee = self.key(lambda k: first_try(AUTHORIZER.program, *seeds, k, JOIN_SCOPE))
        self.chain.svm.airdrop(grantee.pubkey(), 10**9)
        return Grant(self.chain, grantor, grantee)

    @contextmanager
    def paid_by(self, payer: Keypair) -> Iterator[None]:
        before, self.chain.rich = self.chain.rich, payer
        try:
            yield
        finally:
            self.chain.rich = before

    # acting, and noting what it costs

    def note(self, instruction: str, case: str, receipt: Receipt) -> Receipt:
        seen = {"units": receipt.units, "bytes": receipt.size}
        self.table.note(instruction, case, self.capacity, **seen)
        return receipt

    def create(self, case: str, **changes: Any) -> None:
        name = "coordinator.create_run" if self.mint is None else "treasurer.create_pool"
        with self.paid_by(self.run.creator):
            self.note(name, case, self.run.create(**changes))

    def act(self, name: str, case: str, /, **args: Any) -> None:
        """One of the authority's instructions, by the pool if there is one."""
        with self.paid_by(self.run.creator):
            receipt = self.run.act(name, **args)
        if name == "close_pool":
            self.note("treasurer.close_pool", case, receipt)
        elif self.mint is None or name == "close_run":
            self.note(f"coordinator.{name}", case, receipt)
        else:
            self.note("treasurer.update_pool", f"{name}: {case}" if case else name, receipt)

    def send(
        self, instruction: str, case: str, accounts: dict[str, Pubkey | None], payer: Keypair, **args: Any
    ) -> None:
        """Any instruction, signed and paid by one key."""
        program, name = instruction.split(".")
        ix = IDLS[program].instruction(name, accounts | {"payer": payer.pubkey()}, **args)
        with self.paid_by(payer):
            self.note(instruction, case, self.chain.send(ix, payer))

    def grant_act(self, name: str, case: str, grant: Grant, **args: Any) -> None:
        """The grantor creates, limits and closes an authorization; the grantee sets its delegates."""
        actor = grant.grantee if name == "set_delegates" else grant.grantor
        with self.paid_by(actor):
            receipt = grant.create(**args) if name == "create" else grant.act(name, actor, **args)
        self.note(f"authorizer.{name}", case, receipt)

    def join(self, case: str, member: Member, **changes: Any) -> None:
        with self.paid_by(member.hot_key):
            self.note("coordinator.join", case, self.run.join(member, **changes))

    def duty(self, name: str, member: Member, case: str = "nothing due", **args: Any) -> None:
        """A duty of which nothing, or what `case` says, is the consequence."""
        with self.paid_by(member.hot_key):
            receipt = self.run.duty(name, member, **args)
        made = self.phase_events(receipt)
        assert bool(made) == ("transition" in case), f"{name}: {case}: {made}"
        self.note(f"coordinator.{name}", case, receipt)

    @staticmethod
    def phase_events(receipt: Receipt) -> list[dict[str, Any]]:
        return [fields for event, fields in receipt.events if event == "PhaseChanged"]

    def tick(self, case: str, transitions: int) -> None:
        receipt = self.run.tick()
        assert len(self.phase_events(receipt)) == transitions, self.phase_events(receipt)
        self.note("coordinator.tick", case, receipt)

    def commit(self, member: Member, number: int, case: str = "nothing due") -> None:
        self.duty("commit", member, case, round=number, hash=commitment(member, number))

    def vote(self, member: Member, number: int, slots: set[int], case: str = "nothing due") -> None:
        self.duty("witness", member, case, round=number, bitmap=bitmap(slots))

    def size_of(self, account: str, case: str, key: Pubkey | None) -> None:
        """Note an account's bytes, and what it takes to be free of rent."""
        data = self.chain.data(key)
        assert data is not None, account
        lamports = self.chain.svm.minimum_balance_for_rent_exemption(len(data))
        self.table.note(account, case, self.capacity, part="accounts", bytes=len(data), lamports=lamports)
