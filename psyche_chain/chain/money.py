"""Builders of the authorizer's and the treasurer's instructions, and the few SPL ones that are needed."""

import struct
from collections.abc import Sequence
from typing import Any

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from psyche_chain.chain import ids
from psyche_chain.chain.instructions import CreateRunArgs, config_args
from psyche_chain.chain.programs import program
from psyche_chain.chain.state import ChainConfig


def create_authorization(
    grantee: Pubkey, *, payer: Pubkey, grantor: Pubkey, max_weight: int = 1, min_tier: int = 0
) -> Instruction:
    """Starts inactive; `set_active` follows."""
    args = {"grantee": grantee, "scope": ids.JOIN_SCOPE, "max_weight": max_weight, "min_tier": min_tier}
    accounts = {
        "payer": payer,
        "grantor": grantor,
        "authorization": ids.authorization_address(grantor, grantee),
        "system_program": ids.SYSTEM_ID,
    }
    return program("authorizer").instruction("create", args, accounts)


def set_active(active: bool, *, grantor: Pubkey, grantee: Pubkey) -> Instruction:
    accounts = {"grantor": grantor, "authorization": ids.authorization_address(grantor, grantee)}
    return program("authorizer").instruction("set_active", {"active": active}, accounts)


def set_limits(max_weight: int, min_tier: int, *, grantor: Pubkey, grantee: Pubkey) -> Instruction:
    accounts = {"grantor": grantor, "authorization": ids.authorization_address(grantor, grantee)}
    return program("authorizer").instruction(
        "set_limits", {"max_weight": max_weight, "min_tier": min_tier}, accounts
    )


def set_delegates(
    add: Sequence[Pubkey], *, clear: bool, payer: Pubkey, grantor: Pubkey, grantee: Pubkey
) -> Instruction:
    accounts = {
        "payer": payer,
        "grantee": grantee,
        "authorization": ids.authorization_address(grantor, grantee),
        "system_program": ids.SYSTEM_ID,
    }
    return program("authorizer").instruction("set_delegates", {"add": list(add), "clear": clear}, accounts)


def close_authorization(*, grantor: Pubkey, grantee: Pubkey, recipient: Pubkey) -> Instruction:
    accounts = {
        "grantor": grantor,
        "recipient": recipient,
        "authorization": ids.authorization_address(grantor, grantee),
    }
    return program("authorizer").instruction("close", {}, accounts)


def create_pool(
    args: CreateRunArgs,
    *,
    payer: Pubkey,
    authority: Pubkey,
    run_state: Pubkey,
    mint: Pubkey,
    token_program: Pubkey,
) -> Instruction:
    """Creates run, specification, pool and vault; the pool becomes the run's authority."""
    run = ids.run_address(authority, args.run_id)
    pool = ids.pool_address(run_state)
    accounts = {
        "payer": payer,
        "authority": authority,
        "pool": pool,
        "mint": mint,
        "vault": ids.token_account_address(pool, mint, token_program),
        "run": run,
        "run_state": run_state,
        "spec": ids.spec_address(run),
        "coordinator_program": ids.COORDINATOR_ID,
        "token_program": token_program,
        "associated_token_program": ids.ASSOCIATED_TOKEN_ID,
        "system_program": ids.SYSTEM_ID,
    }
    return program("treasurer").instruction("create_pool", {"args": args.as_args()}, accounts)


def _update_pool(
    action: Any, payer: Pubkey, authority: Pubkey, run: Pubkey, run_state: Pubkey
) -> Instruction:
    accounts = {
        "payer": payer,
        "authority": authority,
        "pool": ids.pool_address(run_state),
        "run": run,
        "run_state": run_state,
        "spec": ids.spec_address(run),
        "coordinator_program": ids.COORDINATOR_ID,
        "system_program": ids.SYSTEM_ID,
    }
    return program("treasurer").instruction("update_pool", {"action": action}, accounts)


class PoolActions:
    """The authority's instructions of the coordinator, through the pool that owns the run."""

    def __init__(self, *, payer: Pubkey, authority: Pubkey, run: Pubkey, run_state: Pubkey) -> None:
        self._accounts = (payer, authority, run, run_state)

    def _action(self, variant: str, /, *values: Any, **named: Any) -> Instruction:
        return _update_pool(
            program("treasurer").variant("PoolAction", variant, *values, **named), *self._accounts
        )

    def configure(self, config: ChainConfig) -> Instruction:
        return self._action("Configure", config=config_args(config))

    def set_round_rate(self, rate: int) -> Instruction:
        return self._action("SetRoundRate", rate=rate)

    def set_paused(self, paused: bool) -> Instruction:
        return self._action("SetPaused", paused=paused)

    def reset_spec(self, length: int, sha256: bytes) -> Instruction:
        return self._action("ResetSpec", spec_len=length, spec_sha256=list(sha256))

    def write_spec(self, offset: int, data: bytes) -> Instruction:
        return self._action("WriteSpec", offset=offset, bytes=data)

    def seal_spec(self) -> Instruction:
        return self._action("SealSpec")

    def set_metadata(
        self, name: str, description: str, min_client_version: str, join_authority: Pubkey
    ) -> Instruction:
        return self._action(
            "SetMetadata",
            name=name,
            description=description,
            min_client_version=min_client_version,
            join_authority=join_authority,
        )

    def set_authority(self, new: Pubkey) -> Instruction:
        """Hands the pool over; the run stays the pool's."""
        return self._action("SetAuthority", authority=new)


def claim(
    *,
    payer: Pubkey,
    wallet: Pubkey,
    run: Pubkey,
    run_state: Pubkey,
    mint: Pubkey,
    vault: Pubkey,
    token_program: Pubkey,
) -> Instruction:
    """Settles the wallet's slot while the run lives and pays to its own token account; anybody may ask for it."""
    pool = ids.pool_address(run_state)
    accounts = {
        "payer": payer,
        "wallet": wallet,
        "pool": pool,
        "run": run,
        "run_state": run_state,
        "membership": ids.membership_address(run_state, wallet),
        "claim": ids.claim_address(pool, wallet),
        "mint": mint,
        "vault": vault,
        "wallet_token": ids.token_account_address(wallet, mint, token_program),
        "coordinator_program": ids.COORDINATOR_ID,
        "token_program": token_program,
        "associated_token_program": ids.ASSOCIATED_TOKEN_ID,
        "system_program": ids.SYSTEM_ID,
    }
    return program("treasurer").instruction("claim", {}, accounts)


def close_claim(*, pool: Pubkey, wallet: Pubkey) -> Instruction:
    """Returns the rent of a claim to its wallet, once the pool is closed."""
    accounts = {"wallet": wallet, "pool": pool, "claim": ids.claim_address(pool, wallet)}
    return program("treasurer").instruction("close_claim", {}, accounts)


def close_pool(
    *, authority: Pubkey, run: Pubkey, run_state: Pubkey, mint: Pubkey, vault: Pubkey, token_program: Pubkey
) -> Instruction:
    """Closes the run, withdraws what no member is owed, closes the pool once nobody can be paid any more."""
    accounts = {
        "authority": authority,
        "pool": ids.pool_address(run_state),
        "run": run,
        "run_state": run_state,
        "spec": ids.spec_address(run),
        "mint": mint,
        "vault": vault,
        "authority_token": ids.token_account_address(authority, mint, token_program),
        "coordinator_program": ids.COORDINATOR_ID,
        "token_program": token_program,
    }
    return program("treasurer").instruction("close_pool", {}, accounts)


def create_token_account(
    *, payer: Pubkey, owner: Pubkey, mint: Pubkey, token_program: Pubkey = ids.TOKEN_ID
) -> Instruction:
    """The associated token account of `owner`; does nothing where it exists."""
    metas = [
        AccountMeta(payer, is_signer=True, is_writable=True),
        AccountMeta(ids.token_account_address(owner, mint, token_program), is_signer=False, is_writable=True),
        AccountMeta(owner, is_signer=False, is_writable=False),
        AccountMeta(mint, is_signer=False, is_writable=False),
        AccountMeta(ids.SYSTEM_ID, is_signer=False, is_writable=False),
        AccountMeta(token_program, is_signer=False, is_writable=False),
    ]
    return Instruction(ids.ASSOCIATED_TOKEN_ID, b"\x01", metas)


def initialize_mint(mint: Pubkey, *, decimals: int, authority: Pubkey) -> Instruction:
    """`InitializeMint2` without a freeze authority."""
    data = struct.pack("<BB32sB", 20, decimals, bytes(authority), 0)
    return Instruction(ids.TOKEN_ID, data, [AccountMeta(mint, is_signer=False, is_writable=True)])


def mint_to(
    mint: Pubkey, to: Pubkey, amount: int, *, authority: Pubkey, token_program: Pubkey = ids.TOKEN_ID
) -> Instruction:
    metas = [
        AccountMeta(mint, is_signer=False, is_writable=True),
        AccountMeta(to, is_signer=False, is_writable=True),
        AccountMeta(authority, is_signer=True, is_writable=False),
    ]
    return Instruction(token_program, struct.pack("<BQ", 7, amount), metas)


def transfer_tokens(
    source: Pubkey,
    to: Pubkey,
    amount: int,
    *,
    mint: Pubkey,
    decimals: int,
    owner: Pubkey,
    token_program: Pubkey = ids.TOKEN_ID,
) -> Instruction:
    """`TransferChecked`."""
    metas = [
        AccountMeta(source, is_signer=False, is_writable=True),
        AccountMeta(mint, is_signer=False, is_writable=False),
        AccountMeta(to, is_signer=False, is_writable=True),
        AccountMeta(owner, is_signer=True, is_writable=False),
    ]
    return Instruction(token_program, struct.pack("<BQB", 12, amount, decimals), metas)
