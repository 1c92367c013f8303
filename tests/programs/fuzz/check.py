"""Whether the chain is as the model says, and whether the sums hold that must hold in any case."""

from typing import Any

from tests.programs.fuzz.accounts import Record, Token
from tests.programs.fuzz.log import Log
from tests.programs.fuzz.model import Expected, Model
from tests.programs.fuzz.names import is_tracked
from tests.programs.fuzz.world import FAULTS, Outcome, World


class Broken(Exception):
    """An invariant does not hold; `kind` names which, so that shrinking keeps to it."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


def check_outcome(tx: dict[str, Any], expected: Expected, outcome: Outcome) -> None:
    """The transaction did what it must; a refusal is a named one."""
    for line in outcome.logs:
        if any(fault in line for fault in FAULTS) or "exceeded CUs" in line:
            raise Broken("fault", f"{line} in {tx}")
    if any(fault in outcome.error for fault in FAULTS):
        raise Broken("fault", f"{outcome.error} in {tx}")
    if expected.ok and outcome.error:
        tail = "\n".join(outcome.logs[-6:])
        raise Broken("refused", f"{outcome.error} at {outcome.at}, but it must succeed: {tx}\n{tail}")
    if not expected.ok and not outcome.error:
        raise Broken("accepted", f"must fail with {expected.name or 'an error'} at {expected.at}: {tx}")
    if not expected.ok and expected.at >= 0 and outcome.at != expected.at:
        raise Broken("other instruction", f"{outcome.error} at {outcome.at}, expected {expected}: {tx}")


def check_account(model: Model, world: World, name: str) -> None:
    """Lamports, owner and bytes of one account."""
    mine, theirs = model.accounts.get(name), world.account(name)
    if mine is None or theirs is None:
        if mine is not None or theirs is not None:
            raise Broken("existence", f"{name}: chain {theirs}, model {mine}")
        return
    if theirs.lamports != mine.lamports:
        raise Broken("lamports", f"{name}: chain {theirs.lamports}, model {mine.lamports}")
    if theirs.owner != model.keys.key(mine.owner):
        raise Broken("owner", f"{name}: chain {theirs.owner}, model {mine.owner}")
    data = theirs.data
    if mine.data is None:
        if data:
            raise Broken("data", f"{name}: chain has {len(data)} bytes, model none")
        return
    difference = mine.data.differs(bytes(data), model.keys)
    if difference is not None:
        raise Broken("data", f"{name}: {difference}")


def check_touched(model: Model, world: World) -> None:
    """Every account that the last transaction named."""
    for name in model.touched:
        if is_tracked(name):
            check_account(model, world, name)


def check_everything(model: Model, world: World, known: set[str], lamports: int) -> None:
    """Every account that ever was, and the sums.

    Args:
        known: every name that a transaction has ever used.
        lamports: what there was at the start.
    """
    for name in known | set(model.accounts):
        if is_tracked(name):
            check_account(model, world, name)
    held = sum(a.lamports for n in known | set(model.accounts) if is_tracked(n) and (a := world.account(n)))
    if held + model.fees != lamports:
        raise Broken("lamports", f"{held} held and {model.fees} burnt, of {lamports}")
    for name, account in model.accounts.items():
        if isinstance(account.data, Log):
            check_pay(model, name, account.data)
        if isinstance(account.data, Record) and account.data.kind == "Pool":
            check_pool(model, name, account.data)
        if isinstance(account.data, Record) and account.data.kind == "Membership":
            check_ended(model, account.data)
    check_supply(model)


def check_pay(model: Model, state: str, log: Log) -> None:
    """Rates are shared to the unit, and nobody's pay is anywhere but in its slot or its membership."""
    if log.total_earned + log.pay_carry != log.rates_paid:
        raise Broken("pay", f"{state}: {log.total_earned} + {log.pay_carry} of {log.rates_paid}")
    if sum(log.credits.values()) != log.total_earned:
        raise Broken("pay", f"{state}: credits {log.credits}, total {log.total_earned}")
    held: dict[str, int] = {}
    for slot in log.slots:
        if slot.status:
            held[slot.wallet] = held.get(slot.wallet, 0) + slot.earned
    for account in model.accounts.values():
        member = account.data
        if isinstance(member, Record) and member.kind == "Membership" and member.run_state == state:
            earned = member.earned if member.created_slot == log.created_slot else 0
            held[member.wallet] = held.get(member.wallet, 0) + earned
    for wallet in held.keys() | log.credits.keys():
        if held.get(wallet, 0) != log.credits.get(wallet, 0):
            raise Broken("pay", f"{state}: {wallet} holds {held.get(wallet, 0)}, credited {log.credits}")


def check_pool(model: Model, name: str, pool: Record) -> None:
    """A vault holds what came in less what went out, and nobody was paid more than it earned."""
    vault = model.accounts[pool.vault].data
    assert isinstance(vault, Token)
    inside, out = model.payouts[f"in/{pool.vault}"], pool.paid + pool.withdrawn
    if vault.amount != inside - out:
        raise Broken("vault", f"{name}: {vault.amount} held, {inside} came in, {out} went out")
    if pool.paid != model.payouts[f"paid/{name}"]:
        raise Broken("vault", f"{name}: paid {pool.paid}, counted {model.payouts[f'paid/{name}']}")
    claims = [
        a.data
        for a in model.accounts.values()
        if isinstance(a.data, Record) and a.data.kind == "Claim" and a.data.pool == name
    ]
    claimed = {c.wallet: c.claimed for c in claims if c.created_slot == pool.created_slot}
    if sum(claimed.values()) != pool.paid:
        raise Broken("vault", f"{name}: claims {claimed}, paid {pool.paid}")
    credits = model.ledgers.get((pool.run_state, pool.created_slot))
    state = model.accounts.get(pool.run_state)
    if credits is None and state is not None and isinstance(state.data, Log):
        credits = state.data.credits
    elif credits is not None and sum(credits.values()) != pool.total_earned:
        raise Broken("vault", f"{name}: {pool.total_earned} kept as earned, {credits} credited")
    over = {w: n for w, n in claimed.items() if n > (credits or {}).get(w, 0)}
    if over:
        raise Broken("vault", f"{name}: {over} claimed, {credits} earned")


def check_ended(model: Model, member: Record) -> None:
    """Who earned in a run that ended still has it on record, to the unit."""
    credits = model.ledgers.get((member.run_state, member.created_slot))
    if credits is not None and member.earned != credits.get(member.wallet, 0):
        raise Broken("pay", f"{member.wallet} has {member.earned} of {member.run_state}, credited {credits}")


def check_supply(model: Model) -> None:
    """Every token is in an account."""
    held: dict[str, int] = {}
    for account in model.accounts.values():
        if isinstance(account.data, Token):
            held[account.data.mint] = held.get(account.data.mint, 0) + account.data.amount
    for name, amount in held.items():
        supply = model.accounts[name].data.supply  # type: ignore[union-attr]
        if supply != amount:
            raise Broken("supply", f"{name}: {supply} issued, {amount} held")
