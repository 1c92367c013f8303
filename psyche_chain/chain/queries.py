"""The questions that this package asks an RPC endpoint, with typed answers."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import base58
from solders.hash import Hash
from solders.pubkey import Pubkey

from psyche_chain.chain.errors import RpcError
from psyche_chain.chain.rpc import RpcPool, as_slot

T = TypeVar("T")

CONFIRMED: Final = {"commitment": "confirmed"}
ACCOUNTS_PER_CALL: Final = 100
"""`getMultipleAccounts` takes no more."""
RANKS: Final = {"processed": 0, "confirmed": 1, "finalized": 2}


@dataclass(frozen=True, slots=True)
class Account:
    """An account's bytes as one endpoint saw them at `slot`."""

    key: Pubkey
    owner: Pubkey
    lamports: int
    data: bytes
    slot: int


@dataclass(frozen=True, slots=True)
class SignatureStatus:
    """What the chain says of a transaction. `err` is the raw transaction error, None for success."""

    slot: int
    err: Any
    confirmed: bool


@dataclass(frozen=True, slots=True)
class Simulation:
    """Result of a dry run."""

    err: Any
    logs: tuple[str, ...]
    units: int


def _account(key: Pubkey, raw: Mapping[str, Any], slot: int) -> Account:
    data, encoding = raw["data"]
    if encoding != "base64":
        raise ValueError(f"account data in {encoding}, base64 was asked for")
    return Account(
        key,
        Pubkey.from_string(raw["owner"]),
        as_slot(raw["lamports"]),
        base64.b64decode(data, validate=True),
        slot,
    )


async def get_accounts(
    rpc: RpcPool,
    keys: Sequence[Pubkey],
    *,
    first_bytes: int | None = None,
    usable: Callable[[list[Account | None]], object] | None = None,
    deadline_s: float | None = None,
) -> list[Account | None]:
    """Accounts in the order of `keys`, None where nothing is stored. Within 100 keys all are of one slot.

    With `first_bytes`, only so many bytes of each account's data. Where `usable` raises a `PsycheError` for
    what an endpoint gave (up to 100 accounts), the others are asked before it is raised.
    """
    options: dict[str, Any] = {**CONFIRMED, "encoding": "base64"}
    if first_bytes is not None:
        options["dataSlice"] = {"offset": 0, "length": first_bytes}
    found: list[Account | None] = []
    for at in range(0, len(keys), ACCOUNTS_PER_CALL):
        part = keys[at : at + ACCOUNTS_PER_CALL]

        def parse(values: Any, slot: int, part: Sequence[Pubkey] = part) -> list[Account | None]:
            if len(values) != len(part):
                raise ValueError(f"{len(values)} accounts for {len(part)} keys")
            accounts = [
                None if raw is None else _account(key, raw, slot)
                for key, raw in zip(part, values, strict=True)
            ]
            if usable is not None:
                usable(accounts)
            return accounts

        params = [[str(k) for k in part], options]
        found += await rpc.call_at_slot("getMultipleAccounts", params, parse, deadline_s=deadline_s)
    return found


async def get_account(rpc: RpcPool, key: Pubkey, *, deadline_s: float | None = None) -> Account | None:
    """One account, None where nothing is stored."""
    return (await get_accounts(rpc, [key], deadline_s=deadline_s))[0]


async def account_everywhere(rpc: RpcPool, key: Pubkey, read: Callable[[Account], T]) -> dict[int, T]:
    """What `read` makes of an account, by endpoint; only of endpoints that have it, answer and are believed."""

    def parse(result: Any) -> T:
        return read(_account(key, result["value"], rpc.judge(result["context"], nearly=True)))

    options = {**CONFIRMED, "encoding": "base64"}
    return await rpc.call_each("getAccountInfo", [str(key), options], check=parse)


async def get_program_accounts(
    rpc: RpcPool, program: Pubkey, matches: Sequence[tuple[int, bytes]], *, size: int | None = None
) -> list[Account]:
    """All accounts of `program` that hold the given bytes at the given offsets."""
    filters: list[dict[str, Any]] = [
        {"memcmp": {"offset": offset, "bytes": base58.b58encode(part).decode(), "encoding": "base58"}}
        for offset, part in matches
    ]
    if size is not None:
        filters.append({"dataSize": size})

    def parse(values: Any, slot: int) -> list[Account]:
        found = [_account(Pubkey.from_string(v["pubkey"]), v["account"], slot) for v in values]
        for account in found:
            matching = all(account.data[at:].startswith(part) for at, part in matches)
            if account.owner != program or not matching or size not in (None, len(account.data)):
                raise ValueError(f"account {account.key} was not asked for")
        return found

    params = [str(program), {**CONFIRMED, "encoding": "base64", "filters": filters, "withContext": True}]
    return await rpc.call_at_slot("getProgramAccounts", params, parse)


async def get_balance(rpc: RpcPool, key: Pubkey) -> int:
    """Lamports."""
    return await rpc.call_at_slot("getBalance", [str(key), CONFIRMED], lambda value, _: as_slot(value))


async def rent_exempt(rpc: RpcPool, size: int) -> int:
    """Lamports that an account of `size` bytes must hold."""
    return int(await rpc.call("getMinimumBalanceForRentExemption", [size], check=int))


async def latest_blockhash(rpc: RpcPool) -> tuple[Hash, int]:
    """A recent blockhash and the last block height at which it is valid."""

    def parse(value: Any, _: int) -> tuple[Hash, int]:
        return Hash.from_string(value["blockhash"]), as_slot(value["lastValidBlockHeight"])

    return await rpc.call_at_slot("getLatestBlockhash", [CONFIRMED], parse)


async def block_heights(rpc: RpcPool) -> dict[int, int]:
    """Blocks of the confirmed chain, by endpoint; only of endpoints that answer and are believed."""

    def parse(info: Any) -> int:
        rpc.judge({"slot": info["absoluteSlot"]}, nearly=True)
        return as_slot(info["blockHeight"])

    return await rpc.call_each("getEpochInfo", [CONFIRMED], check=parse)


async def genesis_hash(rpc: RpcPool) -> str:
    """Names the cluster."""
    return str(await rpc.call("getGenesisHash", check=str))


async def node_version(rpc: RpcPool) -> str:
    """The version of the validator behind an endpoint."""
    return str(await rpc.call("getVersion", check=lambda result: result["solana-core"]))


async def send_raw(rpc: RpcPool, transaction: bytes, *, to_all: bool = False) -> None:
    """Hand over a signed transaction, without preflight and without the node's own retries.

    `to_all` gives it to every endpoint; none of them need take it.
    """
    options = {
        "encoding": "base64",
        "skipPreflight": True,
        "maxRetries": 0,
        "preflightCommitment": "confirmed",
    }
    params = [base64.b64encode(transaction).decode(), options]
    if to_all:
        await rpc.call_each("sendTransaction", params, check=str)
    else:
        await rpc.call("sendTransaction", params, check=str, deadline_s=10.0)


async def simulate(rpc: RpcPool, transaction: bytes) -> Simulation:
    """Dry-run a transaction; signatures are not checked and the blockhash is replaced by the newest."""

    def parse(value: Any, _: int) -> Simulation:
        return Simulation(
            value["err"],
            tuple(str(line) for line in value["logs"] or ()),
            int(value.get("unitsConsumed") or 0),
        )

    options = {**CONFIRMED, "encoding": "base64", "sigVerify": False, "replaceRecentBlockhash": True}
    params = [base64.b64encode(transaction).decode(), options]
    return await rpc.call_at_slot("simulateTransaction", params, parse)


def _statuses(result: Any, count: int) -> list[SignatureStatus | None]:
    values = result["value"]
    if len(values) != count:
        raise ValueError(f"{len(values)} statuses for {count} signatures")
    return [
        None
        if v is None
        else SignatureStatus(
            as_slot(v["slot"]),
            v["err"],
            RANKS[v.get("confirmationStatus") or "finalized"] >= RANKS["confirmed"],
        )
        for v in values
    ]


async def signature_statuses(rpc: RpcPool, signatures: Sequence[str]) -> list[SignatureStatus | None]:
    """Status per signature, None where the endpoint does not know it (yet)."""
    params = [list(signatures), {"searchTransactionHistory": False}]
    # not `call_at_slot`: a validator answers this one at its processed slot, ahead of its confirmed answers
    statuses: list[SignatureStatus | None] = await rpc.call(
        "getSignatureStatuses", params, check=lambda result: _statuses(result, len(signatures))
    )
    return statuses


async def status_everywhere(rpc: RpcPool, signature: str) -> dict[int, SignatureStatus | None]:
    """A transaction's status in the history of every endpoint that answers and does not lag behind."""

    def parse(result: Any) -> SignatureStatus | None:
        if as_slot(result["context"]["slot"]) < rpc.newest_slot:
            raise ValueError("the endpoint is behind: its history may lack the transaction")
        return _statuses(result, 1)[0]

    params = [[signature], {"searchTransactionHistory": True}]
    return await rpc.call_each("getSignatureStatuses", params, check=parse)


async def transaction_logs(rpc: RpcPool, signature: str) -> tuple[str, ...]:
    """Log lines of a transaction that landed; empty where no endpoint has them."""

    def parse(result: Any) -> tuple[str, ...]:
        return () if result is None else tuple(result["meta"]["logMessages"] or ())

    options = {**CONFIRMED, "encoding": "base64", "maxSupportedTransactionVersion": 0}
    try:
        logs: tuple[str, ...] = await rpc.call(
            "getTransaction", [signature, options], check=parse, deadline_s=3.0
        )
    except RpcError:  # logs only improve a message
        return ()
    return logs


async def transaction_cost(rpc: RpcPool, signature: str) -> tuple[int, int] | None:
    """Fee and change of the payer's balance, both in lamports; None where no endpoint has the transaction."""

    def parse(result: Any) -> tuple[int, int]:  # a node may learn of it a moment later: asked again
        meta = result["meta"]
        return int(meta["fee"]), int(meta["postBalances"][0]) - int(meta["preBalances"][0])

    options = {**CONFIRMED, "encoding": "base64", "maxSupportedTransactionVersion": 0}
    try:
        cost: tuple[int, int] = await rpc.call(
            "getTransaction", [signature, options], check=parse, deadline_s=3.0
        )
    except RpcError:
        return None
    return cost


async def has_history(rpc: RpcPool, key: Pubkey) -> bool:
    """Whether any transaction ever named the account, as far back as the endpoint remembers."""
    try:
        found: bool = await rpc.call(
            "getSignaturesForAddress", [str(key), {**CONFIRMED, "limit": 1}], check=bool, deadline_s=5.0
        )
    except RpcError:  # a node without a history
        return False
    return found


async def recent_fees(rpc: RpcPool, writable: Sequence[Pubkey]) -> list[int]:
    """Recent prioritisation fees in micro-lamports per compute unit, one per block, for these accounts."""

    def parse(result: Any) -> list[int]:
        return [int(row["prioritizationFee"]) for row in result]

    try:
        fees: list[int] = await rpc.call(
            "getRecentPrioritizationFees", [[str(k) for k in writable[:128]]], check=parse, deadline_s=3.0
        )
    except RpcError:  # a node without this method: pay no priority fee
        return []
    return fees


async def request_airdrop(rpc: RpcPool, key: Pubkey, lamports: int) -> str:
    """Ask a test cluster's faucet for lamports; returns the transaction's signature."""
    return str(await rpc.call("requestAirdrop", [str(key), lamports, CONFIRMED], check=str))
