"""Mints of the new token program, with each of its extensions."""

from dataclasses import dataclass

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.programs.chain_harness import TOKEN_2022, Chain, Run
from tests.programs.crafted import place

KEY = bytes([7] * 32)
BASE, PADDED = 82, 165  # bytes of a plain mint; where the account's type and its extensions start


@dataclass(frozen=True)
class Extension:
    """The instruction that adds an extension before the mint is initialised, and the size of its value."""

    instruction: bytes
    size: int


EXTENSIONS = {
    "TransferFeeConfig": Extension(
        bytes([26, 0, 0, 0]) + (100).to_bytes(2, "little") + (9).to_bytes(8, "little"), 108
    ),
    "MintCloseAuthority": Extension(bytes([25, 1]) + KEY, 32),
    "MintCloseAuthority, given up": Extension(bytes([25, 0]), 32),
    "ConfidentialTransferMint": Extension(bytes([27, 0]) + KEY + b"\1" + bytes(32), 65),
    "DefaultAccountState": Extension(bytes([28, 0, 2]), 1),
    "NonTransferable": Extension(bytes([32]), 0),
    "InterestBearingConfig": Extension(bytes([33, 0]) + KEY + (500).to_bytes(2, "little"), 52),
    "PermanentDelegate": Extension(bytes([35]) + KEY, 32),
    "TransferHook": Extension(bytes([36, 0]) + bytes(32) + KEY, 64),
    "MetadataPointer": Extension(bytes([39, 0]) + KEY + KEY, 64),
    "GroupPointer": Extension(bytes([40, 0]) + KEY + KEY, 64),
    "GroupMemberPointer": Extension(bytes([41, 0]) + KEY + KEY, 64),
}


def entry(kind: int, value: bytes, size: int | None = None) -> bytes:
    """An extension as it lies in a mint's account: type, length, value."""
    return kind.to_bytes(2, "little") + (len(value) if size is None else size).to_bytes(2, "little") + value


METADATA = KEY + KEY + b"".join(len(t).to_bytes(4, "little") + t for t in (b"Token", b"TKN", b"")) + bytes(4)
CRAFTED = {
    "ConfidentialTransferMint": entry(4, bytes(65)),
    "ConfidentialTransferFeeConfig": entry(16, bytes(129)),
    "TokenMetadata": entry(19, METADATA),
    "TokenGroup": entry(21, KEY + KEY + bytes(16)),
    "TokenGroupMember": entry(23, KEY + KEY + bytes(8)),
    "ConfidentialMintBurn": entry(24, bytes(196)),
    "ScaledUiAmount": entry(25, KEY + bytes(24)),
    "Pausable": entry(26, KEY + b"\0"),
    "two, the second refused": entry(18, KEY + KEY) + entry(12, KEY),
    "cut off": entry(3, KEY[:5], 32),
    "of no known type": entry(9999, KEY),
}
"""Extensions that take more than one instruction to make, that LiteSVM's token program is too old for, or that
nobody makes."""


def extended_run(chain: Chain, issuer: Keypair, extension: Extension) -> Run:
    """A run, not yet created, whose pool's mint has an extension of the token program's own making."""
    space = PADDED + 1 + 4 + extension.size
    mint = chain.mint(issuer, TOKEN_2022, extension.instruction, space)
    return Run(chain, mint=mint, token_program=TOKEN_2022)


def crafted_run(chain: Chain, issuer: Keypair, extensions: bytes) -> Run:
    """A run, not yet created, whose pool's mint carries these bytes as extensions; its vault is there already."""
    mint = chain.mint(issuer, TOKEN_2022)
    run = Run(chain, mint=mint, token_program=TOKEN_2022)
    chain.token_account(mint, run.pool, TOKEN_2022)
    extend(chain, mint, extensions)
    return run


def extend(chain: Chain, mint: Pubkey, extensions: bytes) -> None:
    """Write extensions into a plain mint."""
    base = chain.data(mint)
    assert base is not None
    place(chain, mint, base[:BASE].ljust(PADDED, b"\0") + b"\1" + extensions, TOKEN_2022)
