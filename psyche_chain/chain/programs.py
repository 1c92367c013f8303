"""The three programs as package data: IDLs, built programs, and the names of their errors."""

from functools import cache
from pathlib import Path
from typing import Final

from solders.pubkey import Pubkey

from psyche_chain.chain import ids
from psyche_chain.chain._anchor import FRAMEWORK_ERRORS, AnchorProgram, Event

PROGRAMS_DIR: Final = Path(__file__).resolve().parent.parent / "programs"
NAMES: Final = ("coordinator", "authorizer", "treasurer")

_HINTS: Final = {
    "ConstraintSeeds": "an account does not belong to this run; check RUN and --keypair",
    "ConstraintHasOne": "this wallet is not the authority of the account; check --keypair",
    "ConstraintAddress": "an account does not belong to this run; check RUN and --keypair",
    "AccountNotInitialized": "an account that is needed does not exist yet; see: psyche-chain show RUN",
    "AccountNotSigner": "sign with the wallet that owns the account: --keypair",
    "InstructionFallbackNotFound": "the program on this cluster is of another version; check --rpc",
    "InstructionDidNotDeserialize": "the program on this cluster is of another version; check --rpc",
    "AccountOwnedByWrongProgram": "an account belongs to another program; check --rpc",
    "AccountAlreadyInUse": "another command of this wallet made it a moment ago; run this one again to go on",
}

_SYSTEM_ERRORS: Final = {
    0: ("AccountAlreadyInUse", "an account with this address exists already"),
    1: ("ResultWithNegativeLamports", "the paying wallet holds too few lamports"),
    2: ("InvalidProgramId", "an account cannot be given to that program"),
    3: ("InvalidAccountDataLength", "an account cannot have that size"),
    4: ("MaxSeedLengthExceeded", "a seed is too long"),
    5: ("AddressWithSeedMismatch", "the address does not come from that seed"),
}

_TOKEN_ERRORS: Final = {
    0: ("NotRentExempt", "a token account holds too few lamports for its rent"),
    1: ("InsufficientFunds", "the token account holds too few tokens"),
    2: ("InvalidMint", "the account is not a mint"),
    3: ("MintMismatch", "the token account is of another mint"),
    4: ("OwnerMismatch", "the wallet does not own the token account, or may not mint"),
    5: ("FixedSupply", "this mint's supply is fixed"),
    6: ("AlreadyInUse", "the token account exists already"),
    14: ("Overflow", "the amount is too large"),
    17: ("AccountFrozen", "the token account is frozen by the mint's authority"),
    18: ("MintDecimalsMismatch", "the mint has another number of decimals"),
}


@cache
def program(name: str) -> AnchorProgram:
    """The program `coordinator`, `authorizer` or `treasurer`."""
    if name not in NAMES:
        raise ValueError(f"no program is called {name}, there are {', '.join(NAMES)}")
    return AnchorProgram.load(PROGRAMS_DIR / f"{name}.json")


def elf_path(name: str) -> Path:
    """The built program, for deployments."""
    return PROGRAMS_DIR / f"{name}.so"


def program_name(key: Pubkey | str) -> str:
    """A program's name, or its address where it is not one of those that this package uses."""
    key = Pubkey.from_string(key) if isinstance(key, str) else key
    return ids.PROGRAM_NAMES.get(key, str(key))


def describe_error(program_key: Pubkey | str, code: int) -> tuple[str, str, str]:
    """Name, message and hint of a custom error code of a program."""
    name = program_name(program_key)
    if name in NAMES:
        if found := program(name).errors.get(code):
            return found[0], found[1], ""
        if found := FRAMEWORK_ERRORS.get(code):
            return found[0], found[1], _HINTS.get(found[0], "")
    tables = {"system": _SYSTEM_ERRORS, "token": _TOKEN_ERRORS, "token-2022": _TOKEN_ERRORS}
    if found := tables.get(name, {}).get(code):
        return found[0], found[1], _HINTS.get(found[0], "")
    return f"error {code} (0x{code:x})", "", ""


def events(logs: tuple[str, ...]) -> list[Event]:
    """Events of the three programs in a transaction's logs, program by program."""
    return [event for name in NAMES for event in program(name).events(logs)]
