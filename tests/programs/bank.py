"""A chain that is audited: after every transaction all lamports and all tokens are still there.

Only the accounts that a transaction names can change, so each transaction is audited over those; `audit` counts the
whole bank, which is every account that any transaction has named.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.token import ID as TOKEN

from tests.programs.chain_harness import TOKEN_2022, Chain, Receipt, Refused

FEE = 5000
"""Lamports a signature."""
MINT_SIZE, TOKEN_SIZE, TYPE_AT = 82, 165, 165


class Bank(Chain):
    """Counts what there is around every transaction; a difference is an `AssertionError`."""

    def __init__(self) -> None:
        self.known: set[Pubkey] = set()
        self.expected = 0
        """Lamports that the accounts of the bank were given from outside, less all fees."""
        super().__init__()

    def airdrop(self, key: Pubkey, sol: int) -> None:
        self.meet([key])
        super().airdrop(key, sol)
        self.expected += sol * 10**9

    def send(self, instructions: Sequence[Instruction] | Instruction, *signers: Keypair) -> Receipt:
        instructions = [instructions] if isinstance(instructions, Instruction) else list(instructions)
        named = {self.rich.pubkey()} | {meta.pubkey for i in instructions for meta in i.accounts}
        self.meet(named)
        fee = FEE * len({self.rich, *signers})
        lamports, tokens, supplies = self.lamports_of(named), self.tokens_of(named), self.supplies_of(named)
        self.expected -= fee
        try:
            receipt = super().send(instructions, *signers)
        except Refused:
            assert self.lamports_of(named) == lamports - fee, "lamports came or went, though it failed"
            assert self.tokens_of(named) == tokens, "tokens came or went, though it failed"
            raise
        assert self.lamports_of(named) == lamports - fee, "lamports came or went"
        change = self.tokens_of(named)
        change.subtract(tokens)
        made = self.supplies_of(named)
        made.subtract(supplies)
        assert +change == +made, "tokens came or went"
        assert -change == -made, "tokens came or went"
        minting = any(i.program_id in (TOKEN, TOKEN_2022) and i.data[:1] == b"\7" for i in instructions)
        assert minting or not any(made.values()), "a supply has changed"
        return receipt

    def meet(self, keys: Iterable[Pubkey]) -> None:
        """Take accounts into the bank, with what they hold."""
        new = set(keys) - self.known
        self.known |= new
        self.expected += self.lamports_of(new)

    def audit(self) -> None:
        """Count the whole bank.

        Raises:
            AssertionError: there is more or less of something than there was.
        """
        assert self.lamports_of(self.known) == self.expected, "lamports came or went"
        assert +self.tokens_of(self.known) == +self.supplies_of(self.known), "tokens came or went"

    def lamports_of(self, keys: Iterable[Pubkey]) -> int:
        return sum(self.lamports(key) for key in keys)

    def supplies_of(self, keys: Iterable[Pubkey]) -> Counter[Pubkey]:
        """What the mints among the accounts say that there is of their tokens."""
        found: Counter[Pubkey] = Counter()
        for key, data in self._of_tokens(keys):
            if _kind(data) == "mint":
                found[key] = int.from_bytes(data[36:44], "little")
        return found

    def tokens_of(self, keys: Iterable[Pubkey]) -> Counter[Pubkey]:
        """What the accounts hold of each token."""
        sums: Counter[Pubkey] = Counter()
        for _, data in self._of_tokens(keys):
            if _kind(data) == "account":
                sums[Pubkey.from_bytes(data[:32])] += int.from_bytes(data[64:72], "little")
        return sums

    def _of_tokens(self, keys: Iterable[Pubkey]) -> Iterable[tuple[Pubkey, bytes]]:
        for key in keys:
            account = self.svm.get_account(key)
            if account is not None and account.lamports and account.owner in (TOKEN, TOKEN_2022):
                yield key, bytes(account.data)


def _kind(data: bytes) -> str:
    if len(data) == MINT_SIZE:
        return "mint"
    if len(data) == TOKEN_SIZE:
        return "account"
    return {1: "mint", 2: "account"}.get(data[TYPE_AT], "other") if len(data) > TYPE_AT else "other"
