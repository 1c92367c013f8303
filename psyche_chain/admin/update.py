"""`update-run`: bring a run on chain to what a file says, sending only what differs.

Every step is looked up before it is done, and a specification that was written in part is gone on with; so a
command that was interrupted anywhere completes when it is run again.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import trio

from psyche_chain.admin.rewards import fund_vault
from psyche_chain.admin.session import Authority, Report, Session, authority_of
from psyche_chain.amounts import format_amount, to_base_units
from psyche_chain.chain import accounts, queries
from psyche_chain.chain.accounts import Mint, Run
from psyche_chain.chain.state import ChainConfig, RunState
from psyche_chain.config import RewardsTable, RunConfig
from psyche_chain.errors import ConfigError, FundsError, NotFoundError, RefusedError

PIECE_BYTES: Final = 700
"""Specification bytes per transaction; leaves room for the pool's accounts and a fee."""
_REWARDS_KEYS: Final = ("pay_per_tier",)
_MODEL_KEYS: Final = {"max_seq_len": "model.LLM.max_seq_len", "max_tier": "model.LLM.matformer.max_tier"}


@dataclass(frozen=True, slots=True)
class Change:
    """One value of the file that the chain does not hold yet."""

    key: str
    """As in the file."""
    found: Any
    wanted: Any


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be sent so that a run is what its file says."""

    run: Run
    state: RunState
    metadata: tuple[Change, ...] = ()
    spec: tuple[Change, ...] = ()
    config: tuple[Change, ...] = ()
    rate: tuple[Change, ...] = ()
    fund: int = 0
    """Base units that the vault lacks."""
    fund_change: tuple[Change, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        """All of them, in the order in which they are sent."""
        return (*self.metadata, *self.spec, *self.config, *self.rate, *self.fund_change)

    @property
    def needs_halt(self) -> str:
        """Why the plan cannot be carried out now; empty where it can."""
        if self.state.phase.halted or not (self.spec or self.config):
            return ""
        what = "specification" if self.spec else "configuration"
        keys = ", ".join(c.key for c in (*self.spec, *self.config)[:3])
        return (
            f"run {self.run.run_id} is live ({self.state.phase.label}) with another {what} "
            f"than the file's ({keys})"
        )


def spec_bytes(config: RunConfig) -> bytes:
    """The specification as it goes on chain, hashes filled in. Reads data and weights.

    Raises:
        ConfigError: they are not here, or not what the file says.
    """
    try:
        return config.spec.resolve().to_bytes()
    except ValueError as exc:
        raise ConfigError(f"model.LLM: {exc}") from exc


async def update_run(session: Session, run: Run, config: RunConfig, *, dry_run: bool, report: Report) -> Plan:
    """Bring `run` to what `config` says.

    Args:
        session: the authority's wallet.
        run: an existing run; configuration and specification change only while it is halted.
        config: the checked file; its `run_id` must be the run's.
        dry_run: look only; nothing is sent.
        report: told each step that is done.

    Returns:
        What differed before.

    Raises:
        RefusedError: the run is live, another's, or the file wants what cannot change.
        ConfigError, FundsError, ProgramError, RpcError: as their names say; the command may be run again.
    """
    if config.run_id != run.run_id:
        raise RefusedError(
            f"the file is of run {config.run_id!r}, the run is {run.run_id!r}",
            "an id cannot change; name the right file, or take its rules with: --run-id " + run.run_id,
        )
    authority = await authority_of(session, run)
    mint = None
    if authority.pool is not None:
        mint = await accounts.fetch_mint(session.rpc, authority.pool.mint)
        if mint is None:
            raise NotFoundError(f"the mint {authority.pool.mint} of run {run.run_id} does not exist")
    spec = await trio.to_thread.run_sync(spec_bytes, config)
    plan = await make_plan(session, config, authority, spec, mint)
    if not dry_run:
        await carry_out(session, config, authority, plan, spec, mint, report)
    return plan


async def make_plan(
    session: Session, config: RunConfig, authority: Authority, spec: bytes, mint: Mint | None
) -> Plan:
    """Compare chain and file; nothing is sent.

    Raises:
        RefusedError: what differs can never change.
    """
    run = authority.run
    state = await accounts.fetch_state(session.rpc, run)
    _check_shape(config, run, state, authority, mint)
    stored = await accounts.fetch_spec(session.rpc, run)
    sealed = state.spec_sealed and state.spec_hash == hashlib.sha256(spec).digest()
    wanted = config.chain_config()
    rate: tuple[Change, ...] = ()
    fund_change: tuple[Change, ...] = ()
    fund = 0
    if config.rewards is not None and mint is not None:
        rate = _rate_change(config.rewards, state, mint)
        if config.rewards.fund is not None:
            fund, fund_change = await _missing_fund(session, config.rewards, authority, mint)
    return Plan(
        run,
        state,
        metadata=_metadata_changes(config, run),
        spec=() if sealed else tuple(_spec_changes(state, b"" if stored is None else stored.data, spec)),
        config=() if state.configured and state.config == wanted else _config_changes(state, wanted),
        rate=rate,
        fund=fund,
        fund_change=fund_change,
    )


async def carry_out(
    session: Session,
    config: RunConfig,
    authority: Authority,
    plan: Plan,
    spec: bytes,
    mint: Mint | None,
    report: Report,
) -> None:
    """Send what a plan says.

    Raises:
        RefusedError: the run is live, and what differs may change only while it is halted; nothing was sent.
    """
    if plan.needs_halt:
        raise RefusedError(plan.needs_halt, f"pause it first: psyche-chain pause {plan.run.key}")
    sender = session.sender
    if plan.config:  # a refusal is told before the specification is touched
        await sender.simulate([authority.configure(config.chain_config())], label="configure run")
    if plan.metadata:
        await sender.send([authority.set_metadata(*_metadata(config, plan.run))], label="describe run")
        report("set name, description, client version and join authority")
    if plan.spec:
        await _write_spec(session, spec, authority, plan.state, report)
    if plan.config:
        await sender.send([authority.configure(config.chain_config())], label="configure run")
        report("configured the run")
    if plan.rate:
        assert config.rewards is not None
        assert mint is not None
        rate = to_base_units(config.rewards.round_rate, mint.decimals)
        await sender.send([authority.set_round_rate(rate)], label="set round rate")
        report(f"set pay to {format_amount(rate, mint.decimals)} tokens per round")
    if plan.fund:
        assert authority.pool is not None
        assert config.rewards is not None
        assert mint is not None
        try:
            own = config.rewards.mint is None
            await fund_vault(session, authority.pool, mint, plan.fund, may_mint=own)
        except FundsError as exc:
            raise FundsError(f"rewards.fund: {exc.message}", exc.hint) from None
        report(f"funded the pool with {format_amount(plan.fund, mint.decimals)} tokens")


def _check_shape(
    config: RunConfig, run: Run, state: RunState, authority: Authority, mint: Mint | None
) -> None:
    """What was fixed when the run was created must be what the file says."""
    problem = ""
    rewards, pool = config.rewards, authority.pool
    if state.capacity != config.join.capacity:
        problem = f"{state.capacity} slots, join.capacity = {config.join.capacity}"
    elif rewards is not None and pool is None:
        problem = "no pool, the file has [rewards]"
    elif rewards is None and pool is not None:
        problem = "a pool, the file has no [rewards]"
    elif rewards is not None and pool is not None and mint is not None:
        if rewards.mint is not None and str(pool.mint) != rewards.mint:
            problem = f"a pool of mint {pool.mint}, rewards.mint = {rewards.mint}"
        elif rewards.mint is None and rewards.decimals != mint.decimals:
            problem = f"a mint of {mint.decimals} decimals, rewards.decimals = {rewards.decimals}"
    if problem:
        raise RefusedError(
            f"run {config.run_id} ({run.key}) exists already with {problem}; this cannot change",
            f"choose another run_id, or close the run first: psyche-chain close-run {run.key}",
        )


def _metadata(config: RunConfig, run: Run) -> tuple[str, str, str, Any]:
    return (config.name, config.description, config.min_client_version, config.join.key(run.creator))


def _metadata_changes(config: RunConfig, run: Run) -> tuple[Change, ...]:
    keys = ("name", "description", "min_client_version", "join.authority")
    found = (run.name, run.description, run.min_client_version, run.join_authority)
    pairs = zip(keys, found, _metadata(config, run), strict=True)
    open_key = config.join.key(run.creator).default()

    def shown(value: Any) -> str:
        return "open" if value == open_key else str(value)

    return tuple(Change(key, shown(a), shown(b)) for key, a, b in pairs if a != b)


def _leaves(value: Any, path: str = "model.LLM") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    else:
        yield path, value


def _spec_changes(state: RunState, stored: bytes, wanted: bytes) -> Iterator[Change]:
    """Leaf by leaf where the chain holds a whole specification, else in one line."""
    try:
        old = dict(_leaves(json.loads(stored))) if state.spec_sealed else None
    except ValueError:
        old = None
    if old is None:
        yield Change("model.LLM", f"{len(stored)} bytes, not sealed", f"{len(wanted)} bytes")
        return
    new = dict(_leaves(json.loads(wanted)))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield Change(key, old.get(key), new.get(key))


def _config_changes(state: RunState, wanted: ChainConfig) -> tuple[Change, ...]:
    found = asdict(state.config) if state.configured else {}
    return tuple(
        Change(_config_key(name), found.get(name), value)
        for name, value in asdict(wanted).items()
        if found.get(name) != value
    )


def _config_key(name: str) -> str:
    if name in _REWARDS_KEYS:
        return f"rewards.{name}"
    return _MODEL_KEYS.get(name, f"config.{name}")


def _rate_change(rewards: RewardsTable, state: RunState, mint: Mint) -> tuple[Change, ...]:
    try:
        rate = to_base_units(rewards.round_rate, mint.decimals)
    except ValueError as exc:
        raise ConfigError(f"rewards.round_rate: {exc}") from None
    if state.next_round_rate == rate:
        return ()
    found, wanted = (format_amount(r, mint.decimals) for r in (state.next_round_rate, rate))
    return (Change("rewards.round_rate", found, wanted),)


async def _missing_fund(
    session: Session, rewards: RewardsTable, authority: Authority, mint: Mint
) -> tuple[int, tuple[Change, ...]]:
    """What the vault lacks of all that it should ever have received."""
    assert authority.pool is not None
    pool = authority.pool
    wanted = fund_units(rewards, mint)
    vault = await queries.get_account(session.rpc, pool.vault)
    received = accounts.token_amount(vault) + pool.paid + pool.withdrawn
    if received >= wanted:
        return 0, ()
    shown = (format_amount(amount, mint.decimals) for amount in (received, wanted))
    return wanted - received, (Change("rewards.fund", *shown),)


def fund_units(rewards: RewardsTable, mint: Mint) -> int:
    """`rewards.fund` in base units; 0 where the file has none.

    Raises:
        ConfigError: it has more decimals than the mint.
    """
    if rewards.fund is None:
        return 0
    try:
        return to_base_units(rewards.fund, mint.decimals)
    except ValueError as exc:
        raise ConfigError(f"rewards.fund: {exc}") from None


async def _write_spec(
    session: Session, spec: bytes, authority: Authority, state: RunState, report: Report
) -> None:
    """Announce, write and seal; goes on with what an interrupted command has written."""
    run, sender = authority.run, session.sender
    digest = hashlib.sha256(spec).digest()
    if state.spec_sealed or (run.spec_len, run.spec_sha256) != (len(spec), digest):
        await sender.send([authority.reset_spec(len(spec), digest)], label="announce specification")
        written = b""
    else:
        found = await accounts.fetch_spec(session.rpc, run)
        written = b"" if found is None else found.data
    good = next((i for i, (a, b) in enumerate(zip(written, spec, strict=False)) if a != b), len(written))
    for at in range(good, len(spec), PIECE_BYTES):
        piece = spec[at : at + PIECE_BYTES]
        await sender.send([authority.write_spec(at, piece)], label="write specification")
    await sender.send([authority.seal_spec()], label="seal specification")
    report(f"wrote and sealed the specification: {len(spec)} bytes")
