"""The Borsh accounts of the three programs, decoded, and how to find them."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

from solders.pubkey import Pubkey

from psyche_chain.chain import ids, queries
from psyche_chain.chain.errors import DecodeError, NotFoundError
from psyche_chain.chain.programs import program
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.state import Checkpoint, RunState

T = TypeVar("T")

CLOCK_ID: Final = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
RUN_ID_OFFSET: Final = 8 + 3 + 4 * 32 + 4 + 32
"""Where the run id starts in a `Run` account: everything before it has a fixed size."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run: who owns it and where its parts are."""

    key: Pubkey
    version: int
    creator: Pubkey
    authority: Pubkey
    join_authority: Pubkey
    """Whose authorizations admit members; the zero key in an open run."""
    run_state: Pubkey
    spec_len: int
    spec_sha256: bytes
    run_id: str
    name: str
    description: str
    min_client_version: str

    @property
    def open(self) -> bool:
        """Anybody may join."""
        return self.join_authority == Pubkey.default()


@dataclass(frozen=True, slots=True)
class Spec:
    """The training specification's account; `data` is what was written so far."""

    key: Pubkey
    run: Pubkey
    sealed: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Membership:
    """One wallet in one run."""

    key: Pubkey
    run_state: Pubkey
    wallet: Pubkey
    hot_key: Pubkey
    p2p_key: bytes
    tier: int
    weight: int
    slot: int
    earned: int
    """Settled pay, in points; what the slot still holds comes on top."""
    last_epoch: int
    created_slot: int
    """That of the run which was joined: an earlier run at the same address had another."""
    contact: str
    authorization: Pubkey
    """The one that admitted the member; the zero key if the run was open then."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """`grantor` admits `grantee`, or one of its delegates, while `active`."""

    key: Pubkey
    grantor: Pubkey
    grantee: Pubkey
    active: bool
    max_weight: int
    min_tier: int
    created_at: int
    scope: bytes
    delegates: tuple[Pubkey, ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """The treasurer's account of a run that pays; it is the run's authority on chain."""

    key: Pubkey
    run_state: Pubkey
    run: Pubkey
    authority: Pubkey
    mint: Pubkey
    vault: Pubkey
    paid: int
    withdrawn: int
    created_slot: int
    """That of the run state."""
    total_earned: int
    """All that members earned, kept when the run closes before everybody is paid; 0 before."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a wallet has claimed from a pool so far."""

    key: Pubkey
    pool: Pubkey
    wallet: Pubkey
    claimed: int
    created_slot: int
    """That of the pool which paid it."""


@dataclass(frozen=True, slots=True)
class Mint:
    """An SPL mint."""

    key: Pubkey
    program: Pubkey
    authority: Pubkey | None
    supply: int
    decimals: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`RunState` and the chain's clock at the same slot."""

    state: RunState
    clock: int
    """Unix seconds."""


def _build(kind: type[T], name: str, program_name: str, account: queries.Account) -> T:
    owner = program(program_name).id
    if account.owner != owner:
        raise DecodeError(f"{account.key} is owned by {account.owner}, a {name} belongs to {owner}")
    raw = program(program_name).decode(name, account.data)
    raw["key"] = account.key
    try:
        return kind(**{f.name: raw[f.name] for f in fields(kind)})  # type: ignore[arg-type]
    except KeyError as exc:
        raise DecodeError(f"{name} of the program's IDL has no field {exc}") from exc


def decode_run(account: queries.Account) -> Run:
    return _build(Run, "Run", "coordinator", account)


def decode_membership(account: queries.Account) -> Membership:
    return _build(Membership, "Membership", "coordinator", account)


def decode_authorization(account: queries.Account) -> Authorization:
    found = _build(Authorization, "Authorization", "authorizer", account)
    object.__setattr__(found, "scope", bytes(found.scope))
    object.__setattr__(found, "delegates", tuple(found.delegates))
    return found


def decode_pool(account: queries.Account) -> Pool:
    return _build(Pool, "Pool", "treasurer", account)


def decode_claim(account: queries.Account) -> Claim:
    return _build(Claim, "Claim", "treasurer", account)


_SPEC_HEAD: Final = struct.Struct("<8s32sBBI")


def decode_spec(account: queries.Account) -> Spec:
    """A specification: a Borsh head, then raw bytes."""
    if account.owner != ids.COORDINATOR_ID:
        raise DecodeError(f"{account.key} is owned by {account.owner}, a Spec belongs to the coordinator")
    if len(account.data) < _SPEC_HEAD.size:
        raise DecodeError(f"a Spec account of {len(account.data)} bytes is too short")
    discriminator, run, sealed, _bump, length = _SPEC_HEAD.unpack_from(account.data)
    if discriminator != program("coordinator").discriminators["Spec"]:
        raise DecodeError(f"a Spec account starts with {discriminator.hex()}")
    data = account.data[_SPEC_HEAD.size : _SPEC_HEAD.size + length]
    if len(data) != length or sealed > 1:
        raise DecodeError(f"a Spec account claims {length} bytes and holds {len(data)}")
    return Spec(account.key, Pubkey.from_bytes(run), bool(sealed), data)


MINT_BYTES: Final = 82
TYPE_OFFSET: Final = 165
"""Where Token-2022 says what an account with extensions is: 1 for a mint, 2 for a token account."""


def decode_mint(account: queries.Account) -> Mint:
    """An SPL mint (also of Token-2022; its extensions are not looked at).

    Raises:
        DecodeError: the account is something else, such as a wallet or a token account.
    """
    size = len(account.data)
    plain = size == MINT_BYTES and account.owner in (ids.TOKEN_ID, ids.TOKEN_2022_ID)
    extended = size > TYPE_OFFSET and account.owner == ids.TOKEN_2022_ID and account.data[TYPE_OFFSET] == 1
    if not (plain or extended) or account.data[45] != 1:
        raise DecodeError(f"{account.key} is not a token mint")
    has_authority, authority, supply, decimals = struct.unpack_from("<I32sQB", account.data)
    key = Pubkey.from_bytes(authority) if has_authority else None
    return Mint(account.key, account.owner, key, supply, decimals)


async def fetch_run(rpc: RpcPool, key: Pubkey) -> Run:
    """Raises: NotFoundError: there is no run at `key`."""
    account = await queries.get_account(rpc, key)
    if account is None or account.owner != ids.COORDINATOR_ID:
        raise NotFoundError(
            f"there is no run at {key}", "see the runs of this cluster with: psyche-chain list-runs"
        )
    if account.data[:8] != program("coordinator").discriminators["Run"]:
        raise NotFoundError(
            f"{key} is an account of the coordinator, but not a run",
            "name the run's id or its own key; see them with: psyche-chain list-runs",
        )
    return decode_run(account)


async def fetch_runs(rpc: RpcPool, run_id: str | None = None) -> list[Run]:
    """All runs, or those of one id (every creator has ids of its own), sorted by id and key."""
    matches = [(0, program("coordinator").discriminators["Run"])]
    if run_id is not None:
        text = run_id.encode()
        matches.append((RUN_ID_OFFSET, struct.pack("<I", len(text)) + text))
    found = []
    for account in await queries.get_program_accounts(rpc, ids.COORDINATOR_ID, matches):
        try:
            found.append(decode_run(account))
        except DecodeError:
            if run_id is not None:
                raise
    return sorted(found, key=lambda r: (r.run_id, str(r.key)))


async def resolve_run(rpc: RpcPool, name: str) -> Run:
    """The run that a user names by its key, or by its id where only one run has it.

    Raises:
        NotFoundError: there is none, or several have this id.
    """
    try:
        key = Pubkey.from_string(name)
    except ValueError:
        key = None
    if key is not None:
        return await fetch_run(rpc, key)
    runs = await fetch_runs(rpc, name) if 0 < len(name.encode()) <= 32 else []
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise NotFoundError(
            f"no run is called {name!r} on {rpc.names[0]}",
            "see the runs of this cluster with: psyche-chain list-runs",
        )
    keys = ", ".join(str(r.key) for r in runs)
    raise NotFoundError(f"{len(runs)} runs are called {name!r}: {keys}", "name the one you mean by its key")


async def fetch_state(rpc: RpcPool, run: Run) -> RunState:
    """Newest confirmed `RunState`."""
    return (await fetch_snapshot(rpc, run)).state


async def fetch_snapshot(rpc: RpcPool, run: Run, *, deadline_s: float | None = None) -> Snapshot:
    """Newest confirmed `RunState` with the chain's clock at that slot; never older than a former one.

    An endpoint that gives something else is passed over for one that does not.
    """
    found: list[Snapshot] = []

    def read(accounts: list[queries.Account | None]) -> None:
        account, clock = accounts
        if account is None:
            raise NotFoundError(f"the state account {run.run_state} of run {run.run_id} does not exist")
        state = _state_of(run, account)
        if clock is None or len(clock.data) < 40:
            raise DecodeError("the cluster's clock account cannot be read")
        found.append(Snapshot(state, struct.unpack_from("<q", clock.data, 32)[0]))

    await queries.get_accounts(rpc, [run.run_state, CLOCK_ID], usable=read, deadline_s=deadline_s)
    return found[-1]


async def checkpoint_everywhere(rpc: RpcPool, run: Run) -> dict[int, Checkpoint]:
    """The run's checkpoint, by endpoint; only of endpoints that answer and do not lag behind."""
    return await queries.account_everywhere(
        rpc, run.run_state, lambda account: _state_of(run, account).checkpoint
    )


def _state_of(run: Run, account: queries.Account) -> RunState:
    state = RunState.from_account(account.data, owner=account.owner, slot=account.slot)
    if state.run != run.key:
        raise DecodeError(f"the state account {run.run_state} belongs to run {state.run}, not to {run.key}")
    return state


async def fetch_spec(rpc: RpcPool, run: Run) -> Spec | None:
    account = await queries.get_account(rpc, ids.spec_address(run.key))
    return None if account is None else decode_spec(account)


async def fetch_membership(rpc: RpcPool, run_state: Pubkey, wallet: Pubkey) -> Membership | None:
    account = await queries.get_account(rpc, ids.membership_address(run_state, wallet))
    return None if account is None else decode_membership(account)


async def fetch_memberships(rpc: RpcPool, run_state: Pubkey) -> list[Membership]:
    """All memberships of a run, by slot."""
    matches = [(0, program("coordinator").discriminators["Membership"]), (8, bytes(run_state))]
    found = await queries.get_program_accounts(rpc, ids.COORDINATOR_ID, matches)
    return sorted((decode_membership(a) for a in found), key=lambda m: (m.slot, str(m.wallet)))


async def fetch_authorization(rpc: RpcPool, grantor: Pubkey, grantee: Pubkey) -> Authorization | None:
    account = await queries.get_account(rpc, ids.authorization_address(grantor, grantee))
    return None if account is None else decode_authorization(account)


async def find_authorization(rpc: RpcPool, grantor: Pubkey, wallet: Pubkey) -> Authorization | None:
    """An active authorization that admits `wallet`: its own, or one that has it among the delegates."""
    own = await fetch_authorization(rpc, grantor, wallet)
    if own is not None and own.active:
        return own
    matches = [(0, program("authorizer").discriminators["Authorization"]), (8, bytes(grantor))]
    for account in await queries.get_program_accounts(rpc, ids.AUTHORIZER_ID, matches):
        found = decode_authorization(account)
        if found.active and found.scope == ids.JOIN_SCOPE and wallet in found.delegates:
            return found
    return own


async def fetch_pool(rpc: RpcPool, run_state: Pubkey) -> Pool | None:
    """The pool of a run that pays; None for a run without rewards."""
    account = await queries.get_account(rpc, ids.pool_address(run_state))
    return None if account is None else decode_pool(account)


async def fetch_claims(rpc: RpcPool, pool: Pubkey, wallets: Sequence[Pubkey]) -> list[Claim | None]:
    """Claims in the order of `wallets`; None where nothing was claimed yet."""
    accounts = await queries.get_accounts(rpc, [ids.claim_address(pool, w) for w in wallets])
    return [None if a is None else decode_claim(a) for a in accounts]


async def fetch_mint(rpc: RpcPool, key: Pubkey) -> Mint | None:
    """The mint at an address; None where nothing is.

    Raises:
        NotFoundError: something else is there.
    """
    account = await queries.get_account(rpc, key)
    try:
        return None if account is None else decode_mint(account)
    except DecodeError as exc:
        raise NotFoundError(str(exc), "check the mint's address and --rpc") from exc


def token_amount(account: queries.Account | None) -> int:
    """Base units in an SPL token account; 0 where it does not exist."""
    if account is None:
        return 0
    if len(account.data) < 72:
        raise DecodeError(f"{account.key} is not a token account")
    return int(struct.unpack_from("<Q", account.data, 64)[0])


def as_dict(value: Any) -> dict[str, Any]:
    """An account as JSON-ready values: keys in base58, bytes in hex."""

    def plain(v: Any) -> Any:
        if isinstance(v, Pubkey):
            return str(v)
        if isinstance(v, bytes):
            return v.hex()
        if isinstance(v, tuple | list):
            return [plain(x) for x in v]
        return v

    return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
