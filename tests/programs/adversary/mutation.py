"""One change of a valid call, and the names by which the equivalences know it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from tests.programs.adversary.call import Call
from tests.programs.adversary.world import World


@dataclass(frozen=True)
class Mutation:
    """`target` is what was changed (an account's or an argument's name), `kind` how, `detail` with what."""

    scene: str
    target: str
    kind: str
    detail: str
    instruction: Instruction
    placed: Sequence[tuple[Pubkey, Account | None]] = ()

    @property
    def label(self) -> str:
        return f"{self.scene}: {self.target}: {self.kind}: {self.detail}"


def replaced(call: Call, position: int, key: Pubkey, *, signer: bool | None = None) -> Instruction:
    """The call with another key in one position; it signs as the position wants, unless told otherwise."""
    metas = call.metas
    old = metas[position]
    metas[position] = AccountMeta(key, old.is_signer if signer is None else signer, old.is_writable)
    return call.instruction(metas)


def can_sign(world: World, call: Call, key: Pubkey) -> bool:
    """Whether the adversary may hold this key: every wallet's, for it may be anybody's accomplice."""
    return key in world.signers or any(m.pubkey == key and m.is_signer for m in call.metas)


Mutations = Iterator[Mutation]
