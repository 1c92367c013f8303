"""Typed builders of every instruction, one function each; names and arguments are those of the programs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from psyche_chain.chain import ids
from psyche_chain.chain.programs import program
from psyche_chain.chain.state import ChainConfig

TICKING_UNITS: Final = 200_000
"""Compute-unit limit to ask for where an instruction may have to carry out a whole chain of transitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRunArgs:
    """What a run is created with. `join_authority` is the zero key for an open run."""

    run_id: str
    name: str
    description: str
    authority: Pubkey
    join_authority: Pubkey
    min_client_version: str
    spec_len: int
    spec_sha256: bytes

    def as_args(self) -> dict[str, Any]:
        return {**asdict(self), "spec_sha256": list(self.spec_sha256)}


def config_args(config: ChainConfig) -> dict[str, Any]:
    return {**asdict(config), "pay_per_tier": list(config.pay_per_tier)}


def _coordinator(name: str, args: dict[str, Any], **accounts: Pubkey | None) -> Instruction:
    return program("coordinator").instruction(name, args, accounts)


def create_run(args: CreateRunArgs, *, payer: Pubkey, creator: Pubkey, run_state: Pubkey) -> Instruction:
    """`run_state` must be created in the same transaction: right size, owned by the coordinator, zeroed."""
    run = ids.run_address(creator, args.run_id)
    return _coordinator(
        "create_run",
        {"args": args.as_args()},
        payer=payer,
        creator=creator,
        run=run,
        run_state=run_state,
        spec=ids.spec_address(run),
        system_program=ids.SYSTEM_ID,
    )


def reset_spec(
    *, authority: Pubkey, run: Pubkey, run_state: Pubkey, length: int, sha256: bytes
) -> Instruction:
    return _coordinator(
        "reset_spec",
        {"spec_len": length, "spec_sha256": list(sha256)},
        authority=authority,
        run=run,
        run_state=run_state,
        spec=ids.spec_address(run),
    )


def write_spec(
    offset: int, data: bytes, *, payer: Pubkey, authority: Pubkey, run: Pubkey, run_state: Pubkey
) -> Instruction:
    return _coordinator(
        "write_spec",
        {"offset": offset, "bytes": data},
        payer=payer,
        authority=authority,
        run=run,
        run_state=run_state,
        spec=ids.spec_address(run),
        system_program=ids.SYSTEM_ID,
    )


def seal_spec(*, authority: Pubkey, run: Pubkey, run_state: Pubkey) -> Instruction:
    return _coordinator(
        "seal_spec", {}, authority=authority, run=run, run_state=run_state, spec=ids.spec_address(run)
    )


def configure(config: ChainConfig, *, authority: Pubkey, run: Pubkey, run_state: Pubkey) -> Instruction:
    return _coordinator(
        "configure", {"config": config_args(config)}, authority=authority, run=run, run_state=run_state
    )


def set_round_rate(rate: int, *, authority: Pubkey, run: Pubkey, run_state: Pubkey) -> Instruction:
    return _coordinator("set_round_rate", {"rate": rate}, authority=authority, run=run, run_state=run_state)


def set_paused(paused: bool, *, authority: Pubkey, run: Pubkey, run_state: Pubkey) -> Instruction:
    return _coordinator("set_paused", {"paused": paused}, authority=authority, run=run, run_state=run_state)


def set_authority(new: Pubkey, *, authority: Pubkey, run: Pubkey) -> Instruction:
    return _coordinator("set_authority", {"authority": new}, authority=authority, run=run)


def set_metadata(
    name: str,
    description: str,
    min_client_version: str,
    join_authority: Pubkey,
    *,
    authority: Pubkey,
    run: Pubkey,
) -> Instruction:
    args = {
        "name": name,
        "description": description,
        "min_client_version": min_client_version,
        "join_authority": join_authority,
    }
    return _coordinator("set_metadata", args, authority=authority, run=run)


def close_run(*, authority: Pubkey, recipient: Pubkey, run: Pubkey, run_state: Pubkey) -> Instruction:
    return _coordinator(
        "close_run",
        {},
        authority=authority,
        recipient=recipient,
        run=run,
        run_state=run_state,
        spec=ids.spec_address(run),
    )


def join(
    *,
    payer: Pubkey,
    wallet: Pubkey,
    run: Pubkey,
    run_state: Pubkey,
    authorization: Pubkey | None,
    hot_key: Pubkey,
    p2p_key: bytes,
    tier: int,
    weight: int,
    contact: str,
) -> Instruction:
    """`authorization` is None in an open run."""
    args = {
        "hot_key": hot_key,
        "p2p_key": list(p2p_key),
        "tier": tier,
        "weight": weight,
        "contact": contact,
    }
    return _coordinator(
        "join",
        {"args": args},
        payer=payer,
        wallet=wallet,
        run=run,
        run_state=run_state,
        membership=ids.membership_address(run_state, wallet),
        authorization=authorization,
        slot_hashes=ids.SLOT_HASHES_ID,
        instructions=ids.INSTRUCTIONS_ID,
        system_program=ids.SYSTEM_ID,
    )


def update_contact(contact: str, *, signer: Pubkey, membership: Pubkey) -> Instruction:
    return _coordinator("update_contact", {"contact": contact}, signer=signer, membership=membership)


def _duty(name: str, args: dict[str, Any], signer: Pubkey, run_state: Pubkey) -> Instruction:
    return _coordinator(
        name,
        args,
        signer=signer,
        run_state=run_state,
        slot_hashes=ids.SLOT_HASHES_ID,
        instructions=ids.INSTRUCTIONS_ID,
    )


def ready(slot: int, *, signer: Pubkey, run_state: Pubkey) -> Instruction:
    return _duty("ready", {"slot": slot}, signer, run_state)


def commit(slot: int, round: int, hash: bytes, *, signer: Pubkey, run_state: Pubkey) -> Instruction:
    return _duty("commit", {"slot": slot, "round": round, "hash": list(hash)}, signer, run_state)


def witness(slot: int, round: int, bitmap: bytes, *, signer: Pubkey, run_state: Pubkey) -> Instruction:
    """`bitmap`: 32 bytes, see `psyche_chain.chain.state.set_to_bits`."""
    return _duty("witness", {"slot": slot, "round": round, "bitmap": list(bitmap)}, signer, run_state)


def attest_checkpoint(
    slot: int, step: int, digests: Sequence[bytes], *, signer: Pubkey, run_state: Pubkey
) -> Instruction:
    args = {"slot": slot, "step": step, "digests": [list(d) for d in digests]}
    return _duty("attest_checkpoint", args, signer, run_state)


def record_checkpoint(slot: int, uri: str, *, signer: Pubkey, run_state: Pubkey) -> Instruction:
    return _duty("record_checkpoint", {"slot": slot, "uri": uri}, signer, run_state)


def leave(slot: int, *, signer: Pubkey, run_state: Pubkey) -> Instruction:
    return _duty("leave", {"slot": slot}, signer, run_state)


def tick(*, run_state: Pubkey) -> Instruction:
    """Must be the last instruction of its transaction."""
    return _coordinator(
        "tick",
        {},
        run_state=run_state,
        slot_hashes=ids.SLOT_HASHES_ID,
        instructions=ids.INSTRUCTIONS_ID,
    )


def settle(*, run_state: Pubkey, wallet: Pubkey) -> Instruction:
    return _coordinator(
        "settle", {}, run_state=run_state, membership=ids.membership_address(run_state, wallet)
    )


def evict(*, run: Pubkey, run_state: Pubkey, wallet: Pubkey, authorization: Pubkey) -> Instruction:
    return _coordinator(
        "evict",
        {},
        run=run,
        run_state=run_state,
        membership=ids.membership_address(run_state, wallet),
        authorization=authorization,
        slot_hashes=ids.SLOT_HASHES_ID,
        instructions=ids.INSTRUCTIONS_ID,
    )


def close_membership(*, run_state: Pubkey, wallet: Pubkey) -> Instruction:
    return _coordinator(
        "close_membership",
        {},
        wallet=wallet,
        run_state=run_state,
        membership=ids.membership_address(run_state, wallet),
    )
