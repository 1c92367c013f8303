"""The project's programs, and deploying all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from localnet.deploy.loader import (
    CHUNK,
    LEAST_EXTENSION,
    Deployment,
    buffer_key,
    deploy_program,
    read_program,
)
from localnet.deploy.rpc import DeployError, KeyFileError, Rpc, UnreachableError

_ROOT = Path(__file__).resolve().parents[2]
DEFAULT_PROGRAMS = _ROOT / "psyche_chain" / "programs"
DEFAULT_KEYS = _ROOT / "programs" / "keys"
NAMES = ("authorizer", "coordinator", "treasurer")
_FEE_PER_WRITE = 10_000
"""Lamports: two signatures, so that every write may be sent twice."""


@dataclass(frozen=True, slots=True)
class Program:
    """A built program and the key that is its id."""

    name: str
    elf: bytes
    keypair: Keypair

    @property
    def id(self) -> Pubkey:
        return self.keypair.pubkey()


def load_keypair(path: Path) -> Keypair:
    """A key in the Solana CLI's file format.

    Raises:
        KeyFileError: no such file, or it holds something else.
    """
    try:
        numbers = json.loads(path.read_text())
        if not isinstance(numbers, list):
            raise TypeError("no list")
        return Keypair.from_bytes(bytes(numbers))
    except OSError as exc:
        raise KeyFileError(f"cannot read the keypair {path}: {exc.strerror}") from None
    except (ValueError, TypeError):
        raise KeyFileError(f"{path} is no keypair: a JSON list of 64 numbers is expected") from None


def _key_file(keys: Path, name: str) -> Path:
    """A program's keypair: as `programs/keys` names it, or as `anchor build` does in `target/deploy`."""
    built = keys / f"{name}-keypair.json"
    return built if built.exists() else keys / f"{name}-dev-keypair.json"


def find_programs(
    programs: Path = DEFAULT_PROGRAMS, keys: Path = DEFAULT_KEYS, names: Sequence[str] = NAMES
) -> list[Program]:
    """The built programs with their development keys.

    Raises:
        DeployError: one of the files is missing; says how to make it.
    """
    found = []
    for name in names:
        path = programs / f"{name}.so"
        try:
            elf = path.read_bytes()
        except OSError:
            raise DeployError(f"the built program {path} is missing: run `make programs`") from None
        found.append(Program(name, elf, load_keypair(_key_file(keys, name))))
    return found


def needed(rpc: Rpc, payer: Keypair, programs: Sequence[Program]) -> int:
    """Lamports that a payer must have to deploy or upgrade one program after the other; 0 if none changes.

    A buffer's lamports come back when its program is deployed or upgraded, and what an earlier try has put
    into a buffer counts as had. What keeps the payer's own account alive is part of it.
    """
    spent = most = changed = 0
    for program in programs:
        state = read_program(rpc, program.id)
        if state is not None and state.holds(program.elf):
            continue
        changed += 1
        buffer = rpc.account(buffer_key(payer, program.id, program.elf).pubkey())
        spent += (len(program.elf) // CHUNK + 8) * _FEE_PER_WRITE - (buffer[0] if buffer else 0)
        code = rpc.rent(len(program.elf) + 45)
        if state is None:
            spent += code + rpc.rent(36)
            most = max(most, spent)
        else:
            if (missing := len(program.elf) - len(state.code)) > 0:
                spent += rpc.rent(max(missing, LEAST_EXTENSION))
            most = max(most, spent + code)
    return most + rpc.rent(0) if changed else 0


def _fund(rpc: Rpc, payer: Keypair, programs: Sequence[Program]) -> None:
    """Ask the faucet where the payer could not pay for all programs that are to change."""
    enough = needed(rpc, payer, programs)
    balance = rpc.balance(payer.pubkey())
    if balance >= enough:
        return
    try:
        rpc.airdrop(payer.pubkey(), enough - balance)
    except UnreachableError:
        raise
    except DeployError as exc:
        raise DeployError(
            f"{payer.pubkey()} has {balance / 1e9:.3f} SOL, {enough / 1e9:.3f} are needed, and {rpc.url} gave no "
            f"airdrop ({exc}): fund it, or name another key with --payer"
        ) from None


def deploy_all(
    rpc: Rpc,
    payer: Keypair,
    programs: Sequence[Program],
    progress: Callable[[Program, int, int], None] = lambda program, done, size: None,
) -> dict[str, Deployment]:
    """Deploy or upgrade programs; unchanged ones are left alone.

    Args:
        rpc: the chain.
        payer: pays, and is the upgrade authority; funded by airdrop where the chain gives one.
        programs: what to deploy.
        progress: told of (program, bytes on the chain, bytes in all).

    Returns:
        What was done, by name.

    Raises:
        DeployError: the chain refused; running it again goes on where it stopped.
    """
    _fund(rpc, payer, programs)
    done: dict[str, Deployment] = {}
    for program in programs:

        def report(written: int, size: int, program: Program = program) -> None:
            progress(program, written, size)

        done[program.name] = deploy_program(rpc, payer, program.keypair, program.elf, report)
    return done
