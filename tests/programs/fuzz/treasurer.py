"""What each instruction of the treasurer must do to the accounts."""

from tests.programs.fuzz import coordinator, rules, steering
from tests.programs.fuzz.accounts import Mint, Record, Token
from tests.programs.fuzz.log import Log
from tests.programs.fuzz.model import Call, Model, handles
from tests.programs.fuzz.rules import need


def check_mint(m: Model, c: Call) -> None:
    mint = m.accounts.get(c["mint"])
    need(mint is not None and isinstance(mint.data, Mint) and mint.owner == c["token_program"])


def pool_of(m: Model, c: Call) -> Record:
    """The pool at the address that belongs to the log."""
    need(m.same(c["pool"], f"pool/{c['run_state']}"))
    return m.record(c["pool"], "Pool")


@handles("treasurer.create_pool")
def create_pool(m: Model, c: Call) -> None:
    authority, pool, args = c["authority"], c["pool"], c.args["args"]
    need(m.same(pool, f"pool/{c['run_state']}") and m.is_unused(pool))
    check_mint(m, c)
    need(m.same(c["vault"], f"ata/{c['mint']}/{pool}"))
    if not m.is_unused(c["vault"]):
        vault = m.token(c["vault"], c["token_program"])
        need(vault.owner == pool and vault.mint == c["mint"])
    steering.start_run(m, c, args, authority, pool)
    log = m.log(c["run_state"])
    record = Record(
        "Pool",
        run_state=c["run_state"],
        run=c["run"],
        authority=authority,
        mint=c["mint"],
        vault=c["vault"],
        paid=0,
        withdrawn=0,
        bump=m.keys.bump(pool),
        total_earned=0,
        created_slot=log.created_slot,
    )
    m.create(pool, record, "TREASURER", c["payer"])
    if m.is_unused(c["vault"]):
        extended = c["token_program"] == "TOKEN_2022"
        m.create(c["vault"], Token(c["mint"], pool, 0, False, extended), c["token_program"], c["payer"])
    for what in ("paid", "out"):
        m.payouts[f"{what}/{pool}"] = 0
    m.payouts[f"in/{c['vault']}"] = m.token(c["vault"], c["token_program"]).amount


@handles("treasurer.update_pool")
def update_pool(m: Model, c: Call) -> None:
    pool = pool_of(m, c)
    need(pool.authority == c["authority"], "WrongAuthority")
    need(pool.run == c["run"], "WrongRun")
    variant, args = c.args["action"]
    if variant == "SetAuthority":
        need(args["authority"] != "zero", "AuthorityMissing")
        pool.authority = args["authority"]
        return
    name = "".join("_" + ch.lower() if ch.isupper() else ch for ch in variant)[1:]
    steering.ADMIN[name](m, c, c["pool"], args)


@handles("treasurer.claim")
def claim(m: Model, c: Call) -> None:
    pool, wallet = pool_of(m, c), c["wallet"]
    need(pool.run == c["run"], "WrongRun")
    need(pool.mint == c["mint"], "WrongMint")
    need(pool.vault == c["vault"], "WrongVault")
    member = m.record(c["membership"], "Membership")
    need(member.wallet == wallet and member.run_state == c["run_state"], "WrongMembership")
    need(member.created_slot == pool.created_slot, "WrongMembership")
    pay_member(m, c, pool, member)


def living_log(m: Model, c: Call, pool: Record) -> Log | None:
    """The pool's own log; None once its run was closed with pay still owed, whatever lives at the address now."""
    return m.log(c["run_state"]) if pool.total_earned == 0 else None


def pay_member(m: Model, c: Call, pool: Record, member: Record) -> None:
    """Settles a member where its log lives and pays what the vault can of what it is owed."""
    wallet = c["wallet"]
    need(m.same(c["claim"], f"claim/{c['run_state']}/{wallet}"))
    fresh_claim = m.is_unused(c["claim"])
    record = None if fresh_claim else m.record(c["claim"], "Claim")
    check_mint(m, c)
    vault = m.token(c["vault"], c["token_program"])
    need(m.same(c["wallet_token"], f"ata/{c['mint']}/{wallet}"))
    fresh_token = m.is_unused(c["wallet_token"])
    token = None if fresh_token else m.token(c["wallet_token"], c["token_program"])
    need(token is None or (token.owner == wallet and token.mint == c["mint"]), "ConstraintTokenOwner")
    log = living_log(m, c, pool)
    slot = log.slots[member.slot] if log is not None else None
    unsettled = slot.earned if slot is not None and slot.status and slot.wallet == wallet else 0
    claimed = record.claimed if record and record.created_slot == pool.created_slot else 0
    amount = min(member.earned + unsettled - claimed, vault.amount)
    need(amount == 0 or not (vault.frozen or (token is not None and token.frozen)))
    if log is not None:
        coordinator.settle_member(m, c)
    if record is None:
        record = Record("Claim", bump=m.keys.bump(c["claim"]))
        m.create(c["claim"], record, "TREASURER", c["payer"])
    record.pool, record.wallet, record.claimed = c["pool"], wallet, claimed + amount
    record.created_slot = pool.created_slot
    if token is None:
        token = Token(c["mint"], wallet, 0, False, c["token_program"] == "TOKEN_2022")
        m.create(c["wallet_token"], token, c["token_program"], c["payer"])
    pool.paid += amount
    vault.amount -= amount
    token.amount += amount
    m.count(f"paid/{c['pool']}", amount)


@handles("treasurer.close_pool")
def close_pool(m: Model, c: Call) -> None:
    pool, authority = pool_of(m, c), c["authority"]
    need(pool.authority == authority, "WrongAuthority")
    need(pool.run == c["run"], "WrongRun")
    need(pool.mint == c["mint"], "WrongMint")
    need(pool.vault == c["vault"], "WrongVault")
    check_mint(m, c)
    vault = m.token(c["vault"], c["token_program"])
    need(c["authority_token"] != c["vault"])
    token = m.token(c["authority_token"], c["token_program"])
    need(token.mint == c["mint"])
    log = living_log(m, c, pool)
    if log is not None:
        need(log.phase in rules.HALTED, "RunNotHalted")
        need(all(s.earned == 0 for s in log.slots), "RunNotSettled")
    total = log.total_earned if log is not None else pool.total_earned
    owed = max(total - pool.paid, 0)
    excess = max(vault.amount - owed, 0)
    need(excess == 0 or not (vault.frozen or token.frozen))
    if log is not None:
        steering.end_run(m, c, c["pool"], authority)
        pool.total_earned = total
    vault.amount -= excess
    token.amount += excess
    pool.withdrawn += excess
    m.count(f"out/{c['pool']}", excess)
    m.count(f"in/{c['authority_token']}", excess)  # it may be the vault of another pool
    if vault.amount == 0:
        m.close(c["vault"], authority)
        m.close(c["pool"], authority)


@handles("treasurer.close_claim")
def close_claim(m: Model, c: Call) -> None:
    record = m.record(c["claim"], "Claim")
    need(record.wallet == c["wallet"] and record.pool == c["pool"], "WrongClaim")
    pool = m.accounts.get(c["pool"])
    if pool is not None and pool.owner == "TREASURER":
        need(m.record(c["pool"], "Pool").created_slot != record.created_slot, "PoolLives")
    m.close(c["claim"], c["wallet"])
