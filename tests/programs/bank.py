"""A chain that is audited: after every transaction all lamports and all tokens are still there.

Only accounts that a transaction names can change, so the accounts that any transaction has named so far are the
whole bank, as far as these tests are concerned.
"""

from collections.abc import Sequence

from solders.account import Account
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
        super().__init__()

    def keypair(self, sol: int = 10) -> Keypair:
        key = super().keypair(sol)
        self.known.add(key.pubkey())
        return key

    def send(self, instructions: Sequence[Instruction] | Instruction, *signers: Keypair) -> Receipt:
        instructions = [instructions] if isinstance(instructions, Instruction) else list(instructions)
        new = {meta.pubkey for i in instructions for meta in i.accounts}
        self.known |= new | {i.program_id for i in instructions} | {s.pubkey() for s in signers}
        fee = FEE * len({self.rich, *signers})
        lamports, supplies = self.all_lamports(), self.supplies()
        try:
            receipt = super().send(list(instructions), *signers)
        except Refused:
            assert self.all_lamports() == lamports - fee, "lamports came or went in a transaction that failed"
            assert self.supplies() == supplies
            raise
        assert self.all_lamports() == lamports - fee, "lamports came or went"
        tokens = self.all_tokens()
        after = self.supplies()
        assert all(tokens.get(mint, 0) == supply for mint, supply in after.items()), "tokens came or went"
        minted = any(i.program_id in (TOKEN, TOKEN_2022) and i.data[:1] == b"\7" for i in instructions)
        assert minted or all(after.get(mint, supply) == supply for mint, supply in supplies.items())
        return receipt

    def accounts(self) -> dict[Pubkey, Account]:
        """Every account with lamports that a transaction has named."""
        found = ((key, self.svm.get_account(key)) for key in self.known)
        return {key: account for key, account in found if account is not None and account.lamports}

    def all_lamports(self) -> int:
        """Lamports of the whole bank."""
        return sum(account.lamports for account in self.accounts().values())

    def supplies(self) -> dict[Pubkey, int]:
        """What each mint says that there is of its token."""
        return {
            key: int.from_bytes(account.data[36:44], "little")
            for key, account in self.accounts().items()
            if account.owner in (TOKEN, TOKEN_2022) and _kind(account.data) == "mint"
        }

    def all_tokens(self) -> dict[Pubkey, int]:
        """What all accounts of each token hold together."""
        sums: dict[Pubkey, int] = {}
        for account in self.accounts().values():
            if account.owner in (TOKEN, TOKEN_2022) and _kind(account.data) == "account":
                mint = Pubkey.from_bytes(account.data[:32])
                sums[mint] = sums.get(mint, 0) + int.from_bytes(account.data[64:72], "little")
        return sums


def _kind(data: bytes) -> str:
    if len(data) == MINT_SIZE:
        return "mint"
    if len(data) == TOKEN_SIZE:
        return "account"
    return {1: "mint", 2: "account"}.get(data[TYPE_AT], "other") if len(data) > TYPE_AT else "other"
