"""docs/costs.md, written from the table."""

from pathlib import Path

from psyche_chain.admin.create import PIECE_BYTES
from psyche_chain.chain.sender import SendPolicy
from tests.programs.costs.limits import TICKING_UNITS, reaches
from tests.programs.costs.table import CAPACITIES, Table

PAGE = Path(__file__).parents[3] / "docs" / "costs.md"
SOL = 10**9
SIGNATURE_LAMPORTS = 5_000
PRIORITY_MICRO_LAMPORTS = 10_000
ROUND_S = 240
WITNESSES = 32
TRY_UNITS = 1_500

INTRODUCTION = f"""# What the chain costs

Written by `python -m tests.programs.costs --write` from `tests/programs/costs.json`, which it measures with the
committed programs. A test measures them again and fails where compute units differ by more than 3 % or a size at
all; another compares this page with the table.

Every figure is the largest that was seen in three played runs (`tests/programs/costs/`): a usual one, one as dear as
we could make it (half of the work refused, every pay different, a last round that nobody does, members that are the
last of 64 delegates), and one in which every phase ends by its time. Runs have room for {CAPACITIES[0]} members or for
{CAPACITIES[1]}, and are full. A transaction is measured as the client sends it: who signs pays, and it begins with a
compute-unit limit and a price (150 units each, counted).
"""
BUMPS = """## Unlucky addresses

The figures hold for addresses that are found at the first try (bump 255), as half of all are. Each further try costs
{units:,} units: one more on average, ten or more for one address in 1,024. It concerns what may create an
account: `join` looks for one address each time, `claim` for two, `create_run` for two, `create_pool` for four, the
authorizer's `create` for one. The dearest `join` above stays within its limit with {tries} further tries: all but one
wallet in {wallets}. The client asks for {asked:,} units anyway.
"""


def page(table: Table) -> str:
    """The page, ready to be written."""
    parts = [
        INTRODUCTION,
        _limits(table),
        _bumps(table),
        _accounts(table),
        _creator(table),
        _member(table),
        _instructions(table),
    ]
    return "\n".join(parts)


def _rows(head: str, rows: list[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|---" * columns + "|", *rows]) + "\n"


def _limits(table: Table) -> str:
    rows = [
        f"| {r.what} | {r.bound:,} | {r.most:,} | {100 * r.most / r.bound:.0f} % | {r.where} |"
        for r in reaches(table)
    ]
    return "## Limits\n\n" + _rows("| limit | at most | reached | share | by |", rows)


def _bumps(table: Table) -> str:
    (join,) = [reach for reach in reaches(table) if "join" in reach.what]
    tries = (join.bound - join.most) // TRY_UNITS
    return BUMPS.format(units=TRY_UNITS, tries=tries, wallets=2 ** (tries + 1), asked=TICKING_UNITS)


def _lamports(table: Table, account: str, case: str = "", capacity: int = CAPACITIES[0]) -> int:
    return table.accounts[account][case]["lamports"][CAPACITIES.index(capacity)] or 0


def _sol(lamports: float) -> str:
    return f"{lamports / SOL:.6f}".rstrip("0").rstrip(".")


def _accounts(table: Table) -> str:
    rows = []
    for account, cases in sorted(table.accounts.items()):
        for case, entry in cases.items():
            by_size = sorted(set(zip(entry["bytes"], entry["lamports"], CAPACITIES, strict=True)))
            alike = len({size for size, _, _ in by_size}) == 1
            for size, lamports, capacity in by_size[:1] if alike else by_size:
                names = ", ".join(filter(None, [case, "" if alike else f"{capacity} members"]))
                rows.append(f"| {account} | {names} | {size:,} | {lamports:,} | {_sol(lamports or 0)} |")
    return (
        "## Accounts\n\nRent is a deposit: closing an account returns all of it.\n"
        "Only claims stay for good: they say what was paid.\n\n"
        + _rows("| account | of | bytes | lamports | SOL |", rows)
    )


def _creator(table: Table) -> str:
    usual, longest = table.accounts["Spec"]
    rows = []
    for capacity in CAPACITIES:
        for spec in (usual, longest):
            log = _lamports(table, "RunState", capacity=capacity)
            rent = log + _lamports(table, "Run") + _lamports(table, "Spec", spec)
            pool = _lamports(table, "Pool") + _lamports(table, "Vault (token account)")
            pieces = -(-int(spec.split()[0].replace(",", "")) // PIECE_BYTES)
            fees = (
                2 + pieces + 4
            ) * SIGNATURE_LAMPORTS  # create: two signatures; seal, configure, rate, resume
            rows.append(f"| {capacity} | {spec} | {_sol(rent)} | {_sol(rent + pool)} | {_sol(fees)} |")
    head = "| members | specification | rent | rent with a pool | fees |"
    return f"""## What a run costs its creator

In SOL. The rent comes back with `close_run` or `close_pool`. The fees, {SIGNATURE_LAMPORTS:,} lamports a
signature, pay for creating the run, writing the specification in pieces of {PIECE_BYTES} bytes, sealing it, setting
rules and rate, and resuming.

{_rows(head, rows)}"""


def _member(table: Table) -> str:
    rows = []
    for capacity in CAPACITIES:
        duties = 1 + min(1, WITNESSES / capacity)
        a_day = 86_400 / ROUND_S * duties
        priority = TICKING_UNITS * PRIORITY_MICRO_LAMPORTS / 10**6
        plain, hurried = (a_day * fee for fee in (SIGNATURE_LAMPORTS, SIGNATURE_LAMPORTS + priority))
        rows.append(f"| {capacity} | {duties:g} | {a_day:g} | {_sol(plain)} | {_sol(hurried)} |")
    head = "| members | transactions a round | a day | SOL a day | with a priority fee |"
    rent = {name: _sol(_lamports(table, name)) for name in ("Membership", "Claim", "Vault (token account)")}
    return f"""## What a member pays

Rent: {rent["Membership"]} SOL for the membership, which comes back with `close_membership`; in a run that pays,
{rent["Claim"]} SOL for the claim and {rent["Vault (token account)"]} SOL for a token account where there is none yet.

Fees: one signature ({SIGNATURE_LAMPORTS:,} lamports) for each commit, and for each attestation of a round that the
member was drawn for, at most {WITNESSES} witnesses a round. A round takes {ROUND_S // 60} minutes here. Once an epoch
there are `ready` and `attest_checkpoint`, too. A priority fee is paid for the units that a transaction asks for,
{TICKING_UNITS:,} with every duty; {PRIORITY_MICRO_LAMPORTS:,} micro-lamports a unit are
assumed below. The client offers what others recently paid, at most {SendPolicy().max_fee_micro_lamports:,}.

{_rows(head, rows)}"""


def _instructions(table: Table) -> str:
    few, many = CAPACITIES
    parts = ["## Instructions\n"]
    for program in ("coordinator", "authorizer", "treasurer"):
        rows = []
        for group, cases in sorted(table.instructions.items()):
            owner, name = group.split(".")
            if owner != program:
                continue
            for case, entry in cases.items():
                units = " | ".join("–" if value is None else f"{value:,}" for value in entry["units"])
                size = max(value or 0 for value in entry["bytes"])
                rows.append(f"| `{name}` | {case} | {units} | {size:,} |")
        head = f"| instruction | case | units at {few} | units at {many} | bytes |"
        parts.append(f"### {program}\n\n" + _rows(head, rows))
    return "\n".join(parts)
