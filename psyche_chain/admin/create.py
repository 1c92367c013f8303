"""`create-run`: one resumable command. Every step is looked up on chain before it is done.

The run's address comes from creator and id, the mint's from the run's address, the pool's from the state
account; so a command that was interrupted anywhere finds what is there and goes on from it.
"""

import hashlib
from typing import Final

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

from psyche_chain.admin.session import Authority, Report, Session, authority_of
from psyche_chain.amounts import format_amount, to_base_units
from psyche_chain.chain import accounts, ids, instructions, layout, money, queries
from psyche_chain.chain.accounts import Mint, Run
from psyche_chain.chain.instructions import CreateRunArgs
from psyche_chain.chain.state import Phase
from psyche_chain.config import RewardsTable, RunConfig
from psyche_chain.errors import ConfigError, FundsError, NotFoundError, RefusedError

PIECE_BYTES: Final = 700
"""Specification bytes per transaction; leaves room for the pool's accounts and a fee."""
MINT_BYTES: Final = 82


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
    try:
        spec = await trio.to_thread.run_sync(lambda: config.spec.resolve().to_bytes())
    except ValueError as exc:  # the data or the first weights are not here, or not what the file says
        raise ConfigError(f"model.LLM: {exc}") from exc
    key = ids.run_address(session.wallet, config.run_id)
    account = await queries.get_account(session.rpc, key)
    mint: Mint | None = None
    if config.rewards is not None:
        mint = await _mint(session, config.rewards, key, report)
    if account is None:
        await _create(session, config, spec, mint, report)
    run = await accounts.fetch_run(session.rpc, key)
    authority = await authority_of(session, run)
    await _check_shape(session, config, run, authority, mint)
    await _describe(session, config, authority, report)
    await _write_spec(session, spec, authority, report)
    await _configure(session, config, authority, report)
    if config.rewards is not None and mint is not None:
        await _set_rate(session, config.rewards, mint, authority, report)
        if config.rewards.fund is not None:
            await _fund(session, config.rewards, mint, authority, report)
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
        rent = await queries.rent_exempt(session.rpc, MINT_BYTES)
        steps = [
            create_account_with_seed(
                CreateAccountWithSeedParams(
                    from_pubkey=session.wallet,
                    to_pubkey=key,
                    base=session.wallet,
                    seed=seed,
                    lamports=rent,
                    space=MINT_BYTES,
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


async def _create(
    session: Session, config: RunConfig, spec: bytes, mint: Mint | None, report: Report
) -> None:
    wallet = session.wallet
    state = Keypair()
    size = layout.run_state_size(config.join.capacity)
    rent = await queries.rent_exempt(session.rpc, size)
    allocate = create_account(
        CreateAccountParams(
            from_pubkey=wallet, to_pubkey=state.pubkey(), lamports=rent, space=size, owner=ids.COORDINATOR_ID
        )
    )

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
        return [allocate, create]

    wanted = steps(config.description)
    if not session.sender.fits(wanted):
        wanted = steps("")  # `_describe` writes it afterwards
    await session.sender.send(wanted, [state], label=f"create run {config.run_id}")
    report(
        f"created run {config.run_id} with {config.join.capacity} slots" + (" and its pool" if mint else "")
    )


async def _check_shape(
    session: Session, config: RunConfig, run: Run, authority: Authority, mint: Mint | None
) -> None:
    """What was fixed when the run was created must be what the file says."""
    state = await accounts.fetch_state(session.rpc, run)
    problem = ""
    if state.capacity != config.join.capacity:
        problem = f"{state.capacity} slots, join.capacity = {config.join.capacity}"
    elif mint is not None and authority.pool is None:
        problem = "no pool, the file has [rewards]"
    elif mint is None and authority.pool is not None:
        problem = "a pool, the file has no [rewards]"
    elif mint is not None and authority.pool is not None and authority.pool.mint != mint.key:
        problem = f"a pool of mint {authority.pool.mint}, the file says {mint.key}"
    if problem:
        raise RefusedError(
            f"run {config.run_id} ({run.key}) exists already with {problem}; this cannot change",
            "choose another run_id, or close the run first: psyche-chain close-run " + str(run.key),
        )


async def _describe(session: Session, config: RunConfig, authority: Authority, report: Report) -> None:
    run = authority.run
    join_authority = config.join.key(session.wallet)
    found = (run.name, run.description, run.min_client_version, run.join_authority)
    wanted = (config.name, config.description, config.min_client_version, join_authority)
    if found != wanted:
        await session.sender.send([authority.set_metadata(*wanted)], label="describe run")
        report("set name, description, client version and join authority")


def _refuse_live(run: Run, phase: Phase, what: str) -> RefusedError:
    return RefusedError(
        f"run {run.run_id} is live ({phase.label}) with another {what} than the file's",
        f"pause it first: psyche-chain pause {run.key}",
    )


async def _write_spec(session: Session, spec: bytes, authority: Authority, report: Report) -> None:
    run = authority.run
    digest = hashlib.sha256(spec).digest()
    state = await accounts.fetch_state(session.rpc, run)
    if state.spec_sealed and state.spec_hash == digest:
        return
    if not state.phase.halted:
        raise _refuse_live(run, state.phase, "specification")
    if state.spec_sealed or (run.spec_len, run.spec_sha256) != (len(spec), digest):
        await session.sender.send([authority.reset_spec(len(spec), digest)], label="announce specification")
        written = b""
    else:
        found = await accounts.fetch_spec(session.rpc, run)
        written = b"" if found is None else found.data
    good = next((i for i, (a, b) in enumerate(zip(written, spec, strict=False)) if a != b), len(written))
    for at in range(good, len(spec), PIECE_BYTES):
        piece = spec[at : at + PIECE_BYTES]
        await session.sender.send([authority.write_spec(at, piece)], label="write specification")
    await session.sender.send([authority.seal_spec()], label="seal specification")
    report(f"wrote and sealed the specification: {len(spec)} bytes, sha256 {digest.hex()}")


async def _configure(session: Session, config: RunConfig, authority: Authority, report: Report) -> None:
    wanted = config.chain_config()
    state = await accounts.fetch_state(session.rpc, authority.run)
    if state.configured and state.config == wanted:
        return
    if not state.phase.halted:
        raise _refuse_live(authority.run, state.phase, "configuration")
    await session.sender.send([authority.configure(wanted)], label="configure run")
    report("configured the run")


async def _set_rate(
    session: Session, rewards: RewardsTable, mint: Mint, authority: Authority, report: Report
) -> None:
    try:
        rate = to_base_units(rewards.round_rate, mint.decimals)
    except ValueError as exc:
        raise ConfigError(f"rewards.round_rate: {exc}") from None
    state = await accounts.fetch_state(session.rpc, authority.run)
    if state.next_round_rate != rate:
        await session.sender.send([authority.set_round_rate(rate)], label="set round rate")
        report(f"set pay to {format_amount(rate, mint.decimals)} tokens per round")


async def _fund(
    session: Session, rewards: RewardsTable, mint: Mint, authority: Authority, report: Report
) -> None:
    """Bring what the vault has ever received up to `rewards.fund`."""
    from psyche_chain.admin.rewards import fund_vault

    assert authority.pool is not None
    assert rewards.fund is not None
    try:
        wanted = to_base_units(rewards.fund, mint.decimals)
    except ValueError as exc:
        raise ConfigError(f"rewards.fund: {exc}") from None
    pool = authority.pool
    vault = await queries.get_account(session.rpc, pool.vault)
    received = accounts.token_amount(vault) + pool.paid + pool.withdrawn
    if received < wanted:
        missing = wanted - received
        try:
            await fund_vault(session, pool, mint, missing, may_mint=rewards.mint is None)
        except FundsError as exc:
            raise FundsError(f"rewards.fund: {exc.message}", exc.hint) from None
        report(f"funded the pool with {format_amount(missing, mint.decimals)} tokens")


async def _start(session: Session, authority: Authority, paused: bool, report: Report) -> None:
    state = await accounts.fetch_state(session.rpc, authority.run)
    if state.phase is Phase.PAUSED and not paused:
        await session.sender.send([authority.set_paused(False)], label="start run")
        report("started the run")
    elif paused and not state.phase.halted and not state.pause_requested:
        await session.sender.send([authority.set_paused(True)], label="pause run")
        report("asked the run to pause")
