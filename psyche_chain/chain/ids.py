"""Program ids and the addresses that follow from them."""

from typing import Final

from solders.pubkey import Pubkey

COORDINATOR_ID: Final = Pubkey.from_string("G7KidNxsM5kHQGzoYj4gRocyi1B7QGPieFyvKpmtHoNb")
AUTHORIZER_ID: Final = Pubkey.from_string("DTrPTpHVse5cCM49ZXVZ741caG5Zqn9HfspeQmosFR7M")
TREASURER_ID: Final = Pubkey.from_string("6aE5ZjrM2mxKZMkdWwKJq6HAThjCy3vvBedea1eLexYR")
SYSTEM_ID: Final = Pubkey.from_string("11111111111111111111111111111111")
TOKEN_ID: Final = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022_ID: Final = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
ASSOCIATED_TOKEN_ID: Final = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
COMPUTE_BUDGET_ID: Final = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
SLOT_HASHES_ID: Final = Pubkey.from_string("SysvarS1otHashes111111111111111111111111111")
INSTRUCTIONS_ID: Final = Pubkey.from_string("Sysvar1nstructions1111111111111111111111111")

JOIN_SCOPE: Final = b"CoordinatorJoinRun"
"""Scope of the authorization that admits a wallet to a run."""

PROGRAM_NAMES: Final = {
    COORDINATOR_ID: "coordinator",
    AUTHORIZER_ID: "authorizer",
    TREASURER_ID: "treasurer",
    SYSTEM_ID: "system",
    TOKEN_ID: "token",
    TOKEN_2022_ID: "token-2022",
    ASSOCIATED_TOKEN_ID: "associated-token",
    COMPUTE_BUDGET_ID: "compute-budget",
}


def _pda(program: Pubkey, *seeds: bytes) -> Pubkey:
    return Pubkey.find_program_address(list(seeds), program)[0]


def run_address(creator: Pubkey, run_id: str) -> Pubkey:
    """Address of the `Run` that `creator` makes under `run_id`; nobody else can take it."""
    return _pda(COORDINATOR_ID, b"run", bytes(creator), run_id.encode())


def spec_address(run: Pubkey) -> Pubkey:
    return _pda(COORDINATOR_ID, b"spec", bytes(run))


def membership_address(run_state: Pubkey, wallet: Pubkey) -> Pubkey:
    return _pda(COORDINATOR_ID, b"member", bytes(run_state), bytes(wallet))


def authorization_address(grantor: Pubkey, grantee: Pubkey, scope: bytes = JOIN_SCOPE) -> Pubkey:
    return _pda(AUTHORIZER_ID, b"authorization", bytes(grantor), bytes(grantee), scope)


def pool_address(run_state: Pubkey) -> Pubkey:
    return _pda(TREASURER_ID, b"pool", bytes(run_state))


def claim_address(pool: Pubkey, wallet: Pubkey) -> Pubkey:
    return _pda(TREASURER_ID, b"claim", bytes(pool), bytes(wallet))


def token_account_address(owner: Pubkey, mint: Pubkey, token_program: Pubkey = TOKEN_ID) -> Pubkey:
    """The associated token account of `owner` for `mint`."""
    return _pda(ASSOCIATED_TOKEN_ID, bytes(owner), bytes(token_program), bytes(mint))
