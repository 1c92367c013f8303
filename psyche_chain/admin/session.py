"""What every administrative action needs: endpoints, a wallet that pays, and who may change a run."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import semver
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from psyche_chain import __version__
from psyche_chain.chain import accounts, instructions, money
from psyche_chain.chain.accounts import Pool, Run
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.sender import Sender, SendPolicy
from psyche_chain.chain.state import ChainConfig
from psyche_chain.errors import RefusedError, VersionError

Report = Callable[[str], None]
"""Takes a line of progress."""


@dataclass(frozen=True, slots=True)
class Session:
    """Endpoints and a paying wallet."""

    rpc: RpcPool
    sender: Sender

    @property
    def wallet(self) -> Pubkey:
        return self.sender.wallet


@asynccontextmanager
async def open_session(
    rpc: Sequence[str], keypair: Keypair, policy: SendPolicy | None = None
) -> AsyncIterator[Session]:
    """Endpoints and wallet for the duration of a block."""
    async with RpcPool(rpc) as pool:
        yield Session(pool, Sender(pool, keypair, policy))


class Authority:
    """Builds the authority's instructions: directly, or through the pool that owns the run."""

    def __init__(self, run: Run, pool: Pool | None, wallet: Pubkey) -> None:
        self.run = run
        self.pool = pool
        self.wallet = wallet
        self._actions = money.PoolActions(
            payer=wallet, authority=wallet, run=run.key, run_state=run.run_state
        )
        self._direct = {"authority": wallet, "run": run.key, "run_state": run.run_state}

    def configure(self, config: ChainConfig) -> Instruction:
        if self.pool is not None:
            return self._actions.configure(config)
        return instructions.configure(config, **self._direct)

    def set_round_rate(self, rate: int) -> Instruction:
        if self.pool is not None:
            return self._actions.set_round_rate(rate)
        return instructions.set_round_rate(rate, **self._direct)

    def set_paused(self, paused: bool) -> Instruction:
        if self.pool is not None:
            return self._actions.set_paused(paused)
        return instructions.set_paused(paused, **self._direct)

    def reset_spec(self, length: int, sha256: bytes) -> Instruction:
        if self.pool is not None:
            return self._actions.reset_spec(length, sha256)
        return instructions.reset_spec(length=length, sha256=sha256, **self._direct)

    def write_spec(self, offset: int, data: bytes) -> Instruction:
        if self.pool is not None:
            return self._actions.write_spec(offset, data)
        return instructions.write_spec(offset, data, payer=self.wallet, **self._direct)

    def seal_spec(self) -> Instruction:
        if self.pool is not None:
            return self._actions.seal_spec()
        return instructions.seal_spec(**self._direct)

    def set_metadata(
        self, name: str, description: str, min_client_version: str, join_authority: Pubkey
    ) -> Instruction:
        texts = (name, description, min_client_version, join_authority)
        if self.pool is not None:
            return self._actions.set_metadata(*texts)
        return instructions.set_metadata(*texts, authority=self.wallet, run=self.run.key)

    def set_authority(self, new: Pubkey) -> Instruction:
        if self.pool is not None:
            return self._actions.set_authority(new)
        return instructions.set_authority(new, authority=self.wallet, run=self.run.key)


async def owner_of(rpc: RpcPool, run: Run) -> tuple[Pubkey, Pool | None]:
    """The wallet that may change a run, and the pool through which it does so."""
    pool = await accounts.fetch_pool(rpc, run.run_state)
    if pool is not None and pool.key == run.authority:
        return pool.authority, pool
    return run.authority, None


async def authority_of(session: Session, run: Run) -> Authority:
    """The session's wallet as the authority of `run`.

    Raises:
        RefusedError: the run belongs to another wallet.
    """
    owner, pool = await owner_of(session.rpc, run)
    if owner != session.wallet:
        raise RefusedError(
            f"run {run.run_id} belongs to {owner}, this wallet is {session.wallet}",
            f"use that wallet's key file: --keypair; it can hand the run over: "
            f"psyche-chain set-authority {run.key} {session.wallet}",
        )
    return Authority(run, pool, session.wallet)


def check_client_version(run: Run, version: str = __version__) -> None:
    """Refuse to take part with a client that is older than the run allows.

    Raises:
        VersionError: it is older, or the run names a version that cannot be compared.
    """
    needed = run.min_client_version
    if not needed:
        return
    if not semver.Version.is_valid(needed):
        raise VersionError(
            f"run {run.run_id} asks for client version {needed!r}, which is not a semantic version",
            "tell the run's operator",
        )
    if semver.Version.parse(version) < semver.Version.parse(needed):
        raise VersionError(
            f"run {run.run_id} needs client {needed} or newer, this is {version}",
            f"update it: pip install --upgrade 'psyche-py>={needed}'",
        )
