"""Everything that can be said before the model is loaded: is there such a run, may this wallet join it?"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from psyche_chain import __version__
from psyche_chain.admin.session import check_client_version
from psyche_chain.chain import accounts, queries
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.state import RunState, SlotStatus
from psyche_chain.client.options import JoinOptions
from psyche_chain.errors import (
    ConfigError,
    FundsError,
    NotFoundError,
    PsycheError,
    RefusedError,
    VersionError,
)
from psyche_train.spec import SpecError, TrainSpec

FEE_LAMPORTS = 5_000
MIN_DUTIES = 200
"""A wallet that cannot pay for this many transactions is refused: it would stop within minutes."""
MEMBERSHIP_BYTES = 512
"""No membership account is larger."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What was read and checked."""

    run: accounts.Run
    state: RunState
    spec: TrainSpec
    tier: int
    """The tier of this member: as asked for."""


async def admit(rpc: RpcPool, options: JoinOptions, wallet: Pubkey, payer: Pubkey) -> Admission:
    """Check that `wallet` can be a member of the run with these options.

    Raises:
        PsycheError: it cannot; the message says why, the hint what to do.
    """
    run = await accounts.resolve_run(rpc, options.run)
    check_client_version(run)
    state = await accounts.fetch_state(rpc, run)
    spec = await _spec(rpc, run, state)
    if not 0 <= options.tier <= state.config.max_tier:
        raise ConfigError(
            f"tier {options.tier} is not in this run: it has tiers 0 to {state.config.max_tier}",
            "choose another with --tier",
        )
    _check_upload(options)
    _check_checkpoint_from(options)
    slot = state.slot_of(wallet)
    is_member = slot is not None and slot.status in (SlotStatus.WAITING, SlotStatus.ACTIVE)
    if is_member and slot is not None and slot.next_tier != options.tier:
        raise RefusedError(
            f"this wallet is a member of tier {slot.next_tier}, tier {options.tier} was asked for",
            f"use --tier {slot.next_tier}, or leave first: psyche-chain leave {options.run}",
        )
    if not is_member:
        await _check_authorization(rpc, run, options, wallet)
    await _check_balance(rpc, payer, run, wallet)
    return Admission(run, state, spec, options.tier)


def _check_upload(options: JoinOptions) -> None:
    """Refuse to publish a slice as the run's model, and a place that is none."""
    if options.upload is None:
        return
    if options.tier != 0:
        raise ConfigError(
            f"a member of tier {options.tier} holds a slice, only members of tier 0 upload the run's model",
            "leave --upload out, or join with --tier 0",
        )
    if not options.upload.startswith("hub:") and "://" not in options.upload:
        raise ConfigError(
            f"{options.upload!r} is no place to upload to",
            "give --upload hub:ORG/NAME, s3://BUCKET/PATH or gs://...",
        )


def _check_checkpoint_from(options: JoinOptions) -> None:
    """Refuse a path that is not there now; what it holds is checked when it is needed."""
    place = options.checkpoint_from
    if place is None or place.startswith("hub:") or "://" in place:
        return
    if not place or not os.path.exists(os.path.expanduser(place)):
        raise ConfigError(
            f"--checkpoint-from {place!r} does not exist",
            "give a checkpoint's directory, a member's state directory, hub:ORG/NAME or a URL",
        )


async def _spec(rpc: RpcPool, run: accounts.Run, state: RunState) -> TrainSpec:
    account = await accounts.fetch_spec(rpc, run)
    if account is None or not account.sealed:
        raise NotFoundError(
            f"run {run.run_id} has no sealed specification yet",
            "its operator has to finish: psyche-chain create-run CONFIG.toml",
        )
    if hashlib.sha256(account.data).digest() != state.spec_hash:
        raise PsycheError(
            f"the specification of run {run.run_id} does not have the hash that the run shows",
            "try another endpoint with --rpc",
        )
    try:
        return TrainSpec.from_bytes(account.data)
    except SpecError as error:
        raise VersionError(
            f"the specification of run {run.run_id} cannot be read by this version ({__version__}): {error}",
            "upgrade: pip install --upgrade psyche-py",
        ) from None


async def _check_authorization(rpc: RpcPool, run: accounts.Run, options: JoinOptions, wallet: Pubkey) -> None:
    if run.open:
        if options.weight != 1:
            raise ConfigError(
                f"weight {options.weight} was asked for, in an open run everyone has weight 1",
                "leave --weight out",
            )
        return
    found = await accounts.find_authorization(rpc, run.join_authority, wallet)
    ask = f"its operator can admit you: psyche-chain authorize {wallet}"
    if found is None or not found.active:
        state = "is switched off" if found else "does not exist"
        raise RefusedError(f"wallet {wallet} may not join run {run.run_id}: its authorization {state}", ask)
    if options.weight > found.max_weight:
        raise RefusedError(
            f"weight {options.weight} was asked for, the authorization allows up to {found.max_weight}",
            f"use --weight {found.max_weight}, or ask for more",
        )
    if options.tier < found.min_tier:
        raise RefusedError(
            f"tier {options.tier} was asked for, the authorization allows tier {found.min_tier} and above",
            f"use --tier {found.min_tier}",
        )


async def _check_balance(rpc: RpcPool, payer: Pubkey, run: accounts.Run, wallet: Pubkey) -> None:
    needed = MIN_DUTIES * FEE_LAMPORTS
    if await accounts.fetch_membership(rpc, run.run_state, wallet) is None:
        needed += await queries.rent_exempt(rpc, MEMBERSHIP_BYTES)
    balance = await queries.get_balance(rpc, payer)
    if balance < needed:
        raise FundsError(
            f"wallet {payer} holds {balance / 1e9:.6f} SOL, joining needs at least {needed / 1e9:.6f} SOL",
            f"send SOL to {payer}; on a test cluster: psyche-chain wallet airdrop 5",
        )


def peer_seed(wallet: Keypair, run_state: Pubkey) -> bytes:
    """The ed25519 seed of a member's libp2p key: one for every run, the same after a restart."""
    return hashlib.sha256(b"psyche-p2p" + wallet.secret() + bytes(run_state)).digest()


def peer_key(seed: bytes) -> bytes:
    """The public key of a peer seed."""
    return bytes(Keypair.from_seed(seed).pubkey())
