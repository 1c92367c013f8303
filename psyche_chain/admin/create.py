"""`create-run`: one resumable command. Every step is looked up on chain before it is done.

The run's address comes from creator and id, the mint's from the run's address, the pool's from the state
account; so a command that was interrupted anywhere finds what is there and goes on from it. The state account,
whose key is fresh, is created in the same transaction as the run, and the pool's first tokens come with it: a
second try that overlaps with the first fails as a whole, so no rent is orphaned and nothing is paid twice.
"""

import hashlib

import trio
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import (
    CreateAccountParams,
    CreateAccountWithSeedParams,
    create_account,
    create_account_with_seed,
)

from psyche_chain.admin.rewards import funding
from psyche_chain.admin.session import Authority, Report, Session, authority_of
from psyche_chain.admin.update import carry_out, fund_units, make_plan, spec_bytes
from psyche_chain.amounts import format_amount
from psyche_chain.chain import accounts, ids, instructions, layout, money, queries
from psyche_chain.chain.accounts import Mint, Run
from psyche_chain.chain.instructions import CreateRunArgs
from psyche_chain.chain.state import Phase
from psyche_chain.config import RewardsTable, RunConfig
from psyche_chain.errors import FundsError, NotFoundError, RefusedError


async def create_run(session: Session, config: RunConfig, *, paused: bool, report: Report) -> Run:
    """Bring a run on chain to what `config` says, and start it unless `paused`.

    Args:
        session: the wallet becomes the run's creator and authority.
        config: the checked file.
        paused: leave the run paused.
        report: told each step that is done.

    Raises:
        RefusedError: the run exists and cannot become what the file says (it is live, or has another shape).
        ConfigError, FundsError, ProgramError, RpcError: as their names say; the command may be run again.
    """
    spec = await trio.to_thread.run_sync(spec_bytes, config)
    key = ids.run_address(session.wallet, config.run_id)
    account = await queries.get_account(session.rpc, key)
    mint: Mint | None = None
    if config.rewards is not None:
        mint = await _mint(session, config.rewards, key, report)
    if account is None:
        await _create(session, config, spec, mint, report)
    run = await accounts.fetch_run(session.rpc, key)
    authority = await authority_of(session, run)
    plan = await make_plan(session, config, authority, spec, mint)
    await carry_out(session, config, authority, plan, spec, mint, report)
    await _start(session, authority, paused, report)
    return await accounts.fetch_run(session.rpc, key)


async def _mint(session: Session, rewards: RewardsTable, run: Pubkey, report: Report) -> Mint:
    """The mint that the file names, or the one that belongs to the run, created where it is missing."""
    if rewards.mint is not None:
        mint = await accounts.fetch_mint(session.rpc, Pubkey.from_string(rewards.mint))
        if mint is None:
            raise NotFoundError(
                f"rewards.mint = {rewards.mint}: there is no such account", "check --rpc and the mint"
            )
        return mint
    seed = hashlib.sha256(b"psyche-mint" + bytes(run)).hexdigest()[:32]
    key = Pubkey.create_with_seed(session.wallet, seed, ids.TOKEN_ID)
    mint = await accounts.fetch_mint(session.rpc, key)
    if mint is None:
        rent = await queries.rent_exempt(session.rpc, accounts.MINT_BYTES)
        steps = [
            create_account_with_seed(
                CreateAccountWithSeedParams(
                    from_pubkey=session.wallet,
                    to_pubkey=key,
                    base=session.wallet,
                    seed=seed,
                    lamports=rent,
                    space=accounts.MINT_BYTES,
                    owner=ids.TOKEN_ID,
                )
            ),
            money.initialize_mint(key, decimals=rewards.decimals, authority=session.wallet),
        ]
        await session.sender.send(steps, label="create mint")
        report(f"created mint {key} with {rewards.decimals} decimals")
        mint = await accounts.fetch_mint(session.rpc, key)
        assert mint is not None
    elif mint.decimals != rewards.decimals:
        raise RefusedError(
            f"the run's mint {key} has {mint.decimals} decimals, rewards.decimals = {rewards.decimals}",
            f"set rewards.decimals = {mint.decimals}: a mint's decimals never change",
        )
    return mint


def new_state_key() -> Keypair:
    """The key of a run's state account; it is needed in one transaction only."""
    return Keypair()


async def _create(
    session: Session, config: RunConfig, spec: bytes, mint: Mint | None, report: Report
) -> None:
    wallet = session.wallet
    state = new_state_key()
    size = layout.run_state_size(config.join.capacity)
    rent = await queries.rent_exempt(session.rpc, size)
    allocate = create_account(
        CreateAccountParams(
            from_pubkey=wallet, to_pubkey=state.pubkey(), lamports=rent, space=size, owner=ids.COORDINATOR_ID
        )
    )

    fund: list[Instruction] = []
    if config.rewards is not None and mint is not None and (amount := fund_units(config.rewards, mint)):
        vault = ids.token_account_address(ids.pool_address(state.pubkey()), mint.key, mint.program)
        try:
            own = config.rewards.mint is None
            fund = [await funding(session, vault, mint, amount, may_mint=own)]
        except FundsError as exc:
            raise FundsError(f"rewards.fund: {exc.message}", exc.hint) from None

    def steps(description: str) -> list[Instruction]:
        args = CreateRunArgs(
            run_id=config.run_id,
            name=config.name,
            description=description,
            authority=wallet,
            join_authority=config.join.key(wallet),
            min_client_version=config.min_client_version,
            spec_len=len(spec),
            spec_sha256=hashlib.sha256(spec).digest(),
        )
        if mint is None:
            create = instructions.create_run(args, payer=wallet, creator=wallet, run_state=state.pubkey())
        else:
            create = money.create_pool(
                args,
                payer=wallet,
                authority=wallet,
                run_state=state.pubkey(),
                mint=mint.key,
                token_program=mint.program,
            )
        return [allocate, create, *fund]

    wanted = steps(config.description)
    if not session.sender.fits(wanted):
        wanted = steps("")  # `_describe` writes it afterwards
    await session.sender.send(wanted, [state], label=f"create run {config.run_id}")
    slots = "1 slot" if config.join.capacity == 1 else f"{config.join.capacity} slots"
    report(f"created run {config.run_id} with {slots}" + (" and its pool" if mint else ""))
    if fund and mint is not None:
        report(f"funded the pool with {format_amount(amount, mint.decimals)} tokens")


async def _start(session: Session, authority: Authority, paused: bool, report: Report) -> None:
    state = await accounts.fetch_state(session.rpc, authority.run)
    if state.phase is Phase.PAUSED and not paused:
        await session.sender.send([authority.set_paused(False)], label="start run")
        report("started the run")
    elif paused and not state.phase.halted and not state.pause_requested:
        await session.sender.send([authority.set_paused(True)], label="pause run")
        report("asked the run to pause")
