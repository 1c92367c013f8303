"""Money of a run: fund the pool, see what members earned, claim it."""

from dataclasses import dataclass

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from psyche_chain.admin.closed import ClosedRun
from psyche_chain.admin.session import Session
from psyche_chain.amounts import format_amount
from psyche_chain.chain import accounts, ids, money, queries
from psyche_chain.chain.accounts import Mint, Pool, Run
from psyche_chain.chain.errors import ProgramError
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.errors import FundsError, NotFoundError, PsycheError, RefusedError


@dataclass(frozen=True, slots=True)
class MemberPay:
    """One member's money, in base units."""

    wallet: Pubkey
    tier: int
    earned: int
    """Lifetime pay, settled or still in the slot."""
    claimed: int

    @property
    def open(self) -> int:
        """Earned and not claimed."""
        return self.earned - self.claimed


@dataclass(frozen=True, slots=True)
class RunPay:
    """A run's money, in base units."""

    run: Run | ClosedRun
    pool: Pool | None
    mint: Mint | None
    vault: int
    members: tuple[MemberPay, ...]

    @property
    def decimals(self) -> int:
        return 0 if self.mint is None else self.mint.decimals

    @property
    def funded(self) -> int:
        """All that ever came into the vault."""
        return self.vault + (self.pool.paid + self.pool.withdrawn if self.pool is not None else 0)


@dataclass(frozen=True, slots=True)
class Claimed:
    """Result of a claim, in base units."""

    wallet: Pubkey
    amount: int
    still_owed: int
    decimals: int
    mint: Pubkey
    signature: str | None
    """None where there was nothing to pay."""


async def pool_and_mint(rpc: RpcPool, run: Run | ClosedRun) -> tuple[Pool, Mint]:
    """Pool and mint of a run that pays.

    Raises:
        NotFoundError: the run has no pool.
    """
    pool = await accounts.fetch_pool(rpc, run.run_state)
    if pool is None:
        raise NotFoundError(f"run {run.run_id} pays no rewards: it was created without [rewards]")
    mint = await accounts.fetch_mint(rpc, pool.mint)
    if mint is None:
        raise NotFoundError(f"the mint {pool.mint} of run {run.run_id} does not exist")
    return pool, mint


async def funding(session: Session, vault: Pubkey, mint: Mint, amount: int, *, may_mint: bool) -> Instruction:
    """The instruction that brings `amount` base units into a vault: from the wallet's token account, or newly
    minted.

    Raises:
        FundsError: the wallet's token account holds too few.
        RefusedError: minting was asked for and the wallet may not mint.
    """
    wallet = session.wallet
    if may_mint:
        if mint.authority != wallet:
            raise RefusedError(
                f"wallet {wallet} may not mint {mint.key}, {mint.authority or 'nobody'} may",
                "leave --mint away to transfer tokens that the wallet has",
            )
        return money.mint_to(mint.key, vault, amount, authority=wallet, token_program=mint.program)
    source = ids.token_account_address(wallet, mint.key, mint.program)
    have = accounts.token_amount(await queries.get_account(session.rpc, source))
    if have < amount:
        raise FundsError(
            f"wallet {wallet} has {format_amount(have, mint.decimals)} tokens of {mint.key}, "
            f"{format_amount(amount, mint.decimals)} are needed",
            "send tokens to it" + (", or mint them with --mint" if mint.authority == wallet else ""),
        )
    return money.transfer_tokens(
        source,
        vault,
        amount,
        mint=mint.key,
        decimals=mint.decimals,
        owner=wallet,
        token_program=mint.program,
    )


async def fund_vault(session: Session, pool: Pool, mint: Mint, amount: int, *, may_mint: bool) -> str:
    """Bring `amount` base units into the pool's vault; returns the signature. Raises as `funding` does."""
    step = await funding(session, pool.vault, mint, amount, may_mint=may_mint)
    return (await session.sender.send([step], label="fund the pool")).signature


async def fetch_pay(rpc: RpcPool, run: Run | ClosedRun) -> RunPay:
    """What everybody earned and claimed. Works for runs without a pool, too: they count points."""
    in_slot: dict[Pubkey, int] = {}
    if isinstance(run, Run):
        state = await accounts.fetch_state(rpc, run)
        in_slot = {s.wallet: s.earned for s in state.members()}
    memberships = await accounts.fetch_memberships(rpc, run.run_state)
    pool = await accounts.fetch_pool(rpc, run.run_state)
    mint = None if pool is None else await accounts.fetch_mint(rpc, pool.mint)
    vault = 0 if pool is None else accounts.token_amount(await queries.get_account(rpc, pool.vault))
    claims = await accounts.fetch_claims(rpc, pool.key, [m.wallet for m in memberships]) if pool else []
    if pool is not None:  # an earlier run at the same address counts for nothing
        memberships = [m for m in memberships if m.created_slot == pool.created_slot]
        claims = [c for c in claims if c is not None and c.created_slot == pool.created_slot]
    claimed = {c.wallet: c.claimed for c in claims if c is not None}
    members = tuple(
        MemberPay(m.wallet, m.tier, m.earned + in_slot.get(m.wallet, 0), claimed.get(m.wallet, 0))
        for m in memberships
    )
    return RunPay(run, pool, mint, vault, members)


async def claim(session: Session, run: Run | ClosedRun, wallet: Pubkey | None = None) -> Claimed:
    """Pay out what a wallet earned and has not claimed, as far as the vault holds it.

    Args:
        session: pays the fee, and the rent of accounts that the member lacks.
        run: a run that pays, or one that was closed with open claims.
        wallet: whose pay goes to its own token account; the session's where None.

    Raises:
        NotFoundError: the run pays nothing, or the wallet never was a member.
    """
    owner = wallet or session.wallet
    pool, mint = await pool_and_mint(session.rpc, run)
    before = _member(await fetch_pay(session.rpc, run), owner)
    if before is None:
        raise NotFoundError(
            f"wallet {owner} is not a member of run {run.run_id}",
            "claim with the wallet that joined: --keypair, or name it: --for ADDRESS",
        )
    signature = None
    if before.open:
        step = money.claim(
            payer=session.wallet,
            wallet=owner,
            run=run.key,
            run_state=run.run_state,
            mint=mint.key,
            vault=pool.vault,
            token_program=mint.program,
        )
        vault = accounts.token_amount(await queries.get_account(session.rpc, pool.vault))
        if vault:  # else nothing would move, and the accounts of the claim would cost rent
            signature = (await session.sender.send([step], label=f"claim for {owner}")).signature
    after = _member(await fetch_pay(session.rpc, run), owner)
    assert after is not None
    return Claimed(owner, after.claimed - before.claimed, after.open, mint.decimals, mint.key, signature)


def _member(pay: RunPay, wallet: Pubkey) -> MemberPay | None:
    return next((m for m in pay.members if m.wallet == wallet), None)


@dataclass(frozen=True, slots=True)
class ClaimedAll:
    """Result of claims for all members."""

    claims: tuple[Claimed, ...]
    failed: tuple[tuple[Pubkey, PsycheError], ...]
    """Members that could not be paid, and why."""


async def claim_all(session: Session, run: Run | ClosedRun) -> ClaimedAll:
    """Claim for every member that has open pay, largest first, while the vault holds something. Safe to repeat.

    A member that cannot be paid (its token account is frozen, say) does not keep the others from it.
    """
    done, failed = [], []
    pay = await fetch_pay(session.rpc, run)
    if pay.pool is None:
        raise NotFoundError(f"run {run.run_id} pays no rewards: it was created without [rewards]")
    for member in sorted(pay.members, key=lambda m: (-m.open, str(m.wallet))):
        if not member.open:
            break
        try:
            claimed = await claim(session, run, member.wallet)
        except ProgramError as exc:
            failed.append((member.wallet, exc))
            continue
        done.append(claimed)
        if claimed.still_owed:
            break  # the vault is empty
    return ClaimedAll(tuple(done), tuple(failed))
