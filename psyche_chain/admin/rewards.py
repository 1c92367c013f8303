"""Money of a run: fund the pool, see what members earned, claim it."""

from dataclasses import dataclass

from solders.pubkey import Pubkey

from psyche_chain.admin.session import Session
from psyche_chain.amounts import format_amount
from psyche_chain.chain import accounts, ids, instructions, money, queries
from psyche_chain.chain.accounts import Mint, Pool, Run
from psyche_chain.chain.errors import ProgramError
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.errors import FundsError, NotFoundError, RefusedError


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

    run: Run
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

    amount: int
    still_owed: int
    decimals: int
    mint: Pubkey
    signature: str


async def pool_and_mint(rpc: RpcPool, run: Run) -> tuple[Pool, Mint]:
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


async def fund_vault(session: Session, pool: Pool, mint: Mint, amount: int, *, may_mint: bool) -> str:
    """Bring `amount` base units into the vault: from the wallet's token account, or newly minted.

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
        step = money.mint_to(mint.key, pool.vault, amount, authority=wallet, token_program=mint.program)
    else:
        source = ids.token_account_address(wallet, mint.key, mint.program)
        have = accounts.token_amount(await queries.get_account(session.rpc, source))
        if have < amount:
            raise FundsError(
                f"wallet {wallet} has {format_amount(have, mint.decimals)} tokens of {mint.key}, "
                f"{format_amount(amount, mint.decimals)} are needed",
                "send tokens to it" + (", or mint them with --mint" if mint.authority == wallet else ""),
            )
        step = money.transfer_tokens(
            source,
            pool.vault,
            amount,
            mint=mint.key,
            decimals=mint.decimals,
            owner=wallet,
            token_program=mint.program,
        )
    return (await session.sender.send([step], label="fund the pool")).signature


async def fetch_pay(rpc: RpcPool, run: Run) -> RunPay:
    """What everybody earned and claimed. Works for runs without a pool, too: they count points."""
    state = await accounts.fetch_state(rpc, run)
    memberships = await accounts.fetch_memberships(rpc, run.run_state)
    pool = await accounts.fetch_pool(rpc, run.run_state)
    mint = None if pool is None else await accounts.fetch_mint(rpc, pool.mint)
    vault = 0 if pool is None else accounts.token_amount(await queries.get_account(rpc, pool.vault))
    claims = await accounts.fetch_claims(rpc, pool.key, [m.wallet for m in memberships]) if pool else []
    claimed = {c.wallet: c.claimed for c in claims if c is not None}
    in_slot = {s.wallet: s.earned for s in state.members()}
    members = tuple(
        MemberPay(m.wallet, m.tier, m.earned + in_slot.get(m.wallet, 0), claimed.get(m.wallet, 0))
        for m in memberships
    )
    return RunPay(run, pool, mint, vault, members)


async def claim(session: Session, run: Run, wallet: Pubkey | None = None) -> Claimed:
    """Pay out what a wallet earned and has not claimed, as far as the vault holds it.

    Args:
        session: pays the fee.
        run: a run that pays.
        wallet: whose pay goes to its own token account; the session's where None.

    Raises:
        NotFoundError: the run pays nothing, or the wallet never was a member.
    """
    owner = wallet or session.wallet
    pool, mint = await pool_and_mint(session.rpc, run)
    membership = await accounts.fetch_membership(session.rpc, run.run_state, owner)
    if membership is None:
        raise NotFoundError(
            f"wallet {owner} is not a member of run {run.run_id}",
            "claim with the wallet that joined: --keypair, or name it: --for ADDRESS",
        )
    step = money.claim(
        payer=session.wallet,
        wallet=owner,
        run=run.key,
        run_state=run.run_state,
        mint=mint.key,
        vault=pool.vault,
        token_program=mint.program,
    )
    before = (await accounts.fetch_claims(session.rpc, pool.key, [owner]))[0]
    receipt = await session.sender.send([step], label="claim")
    pay = await fetch_pay(session.rpc, run)
    mine = next(m for m in pay.members if m.wallet == owner)
    amount = mine.claimed - (0 if before is None else before.claimed)
    return Claimed(amount, mine.open, mint.decimals, mint.key, receipt.signature)


async def settle_all(session: Session, run: Run) -> int:
    """Settle every slot that can be, so that departed members' slots get free; returns how many were
    settled.
    """
    state = await accounts.fetch_state(session.rpc, run)
    settled = 0
    for slot in list(state.members()):
        step = instructions.settle(run_state=run.run_state, wallet=slot.wallet)
        try:
            await session.sender.send([step], label=f"settle slot {slot.index}")
            settled += 1
        except ProgramError:
            continue  # a round that is not over names it, or its membership belongs to a later slot
    return settled
