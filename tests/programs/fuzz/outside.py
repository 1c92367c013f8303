"""What the authorizer, the system program and the token programs must do to the accounts."""

from tests.programs.fuzz.accounts import Account, Mint, Record, Token, Zeros, authorization_space
from tests.programs.fuzz.model import Call, Model, handles
from tests.programs.fuzz.packing import rent
from tests.programs.fuzz.rules import need

CLOSE_AFTER_S = 30 * 24 * 60 * 60
U64 = 1 << 64
SCOPE = b"CoordinatorJoinRun"


# authorizer


@handles("authorizer.create")
def create(m: Model, c: Call) -> None:
    grantee, scope = c.args["grantee"], bytes.fromhex(c.args["scope"])
    need(scope == SCOPE)  # the only one that has names here
    name = c["authorization"]
    need(m.same(name, f"auth/{c['grantor']}/{grantee}") and m.is_unused(name))
    need(c.args["max_weight"] > 0, "ZeroWeight")
    record = Record(
        "Authorization",
        size=authorization_space(len(scope), 0),
        grantor=c["grantor"],
        grantee=grantee,
        active=False,
        max_weight=c.args["max_weight"],
        min_tier=c.args["min_tier"],
        bump=m.keys.bump(name),
        created_at=m.now,
        scope=scope,
        delegates=[],
    )
    m.create(name, record, "AUTHORIZER", c["payer"])


def granted(m: Model, c: Call) -> Record:
    record = m.record(c["authorization"], "Authorization")
    need(record.grantor == c["grantor"], "WrongGrantor")
    return record


@handles("authorizer.set_active")
def set_active(m: Model, c: Call) -> None:
    granted(m, c).active = c.args["active"]


@handles("authorizer.set_limits")
def set_limits(m: Model, c: Call) -> None:
    record = granted(m, c)
    need(c.args["max_weight"] > 0, "ZeroWeight")
    record.max_weight, record.min_tier = c.args["max_weight"], c.args["min_tier"]


@handles("authorizer.set_delegates")
def set_delegates(m: Model, c: Call) -> None:
    record = m.record(c["authorization"], "Authorization")
    need(record.grantee == c["grantee"], "WrongGrantee")
    kept = [] if c.args["clear"] else list(record.delegates)
    added = c.args["add"]
    need(len(kept) + len(added) <= 64, "TooManyDelegates")
    for key in added:
        need(key != record.grantee and key not in kept, "DuplicateDelegate")
        kept.append(key)
    size = authorization_space(len(record.scope), len(kept))
    if size > record.size:
        m.pay_rent(c["authorization"], size, c["payer"])
    elif size < record.size:
        account = m.accounts[c["authorization"]]
        m.accounts[c["payer"]].lamports += account.lamports - rent(size)
        account.lamports = rent(size)
    record.size, record.delegates = size, kept


@handles("authorizer.close")
def close(m: Model, c: Call) -> None:
    record = granted(m, c)
    need(c["recipient"] != c["authorization"])
    need(not record.active, "StillActive")
    need(not record.delegates or m.now - record.created_at >= CLOSE_AFTER_S, "StillDelegated")
    m.close(c["authorization"], c["recipient"])


# system program


@handles("system.transfer")
def transfer(m: Model, c: Call) -> None:
    need(m.is_unused(c["from"]))
    source = m.accounts.get(c["from"], Account(0))
    need(source.lamports >= c.args["lamports"])
    source.lamports -= c.args["lamports"]
    m.accounts.setdefault(c["to"], Account(0)).lamports += c.args["lamports"]


@handles("system.create")
def create_account(m: Model, c: Call) -> None:
    need(c["new"] not in m.accounts or m.accounts[c["new"]].lamports == 0)
    need(m.is_unused(c["from"]))
    source = m.accounts.get(c["from"], Account(0))
    need(source.lamports >= c.args["lamports"])
    source.lamports -= c.args["lamports"]
    m.accounts[c["new"]] = Account(c.args["lamports"], "COORDINATOR", Zeros(c.args["space"]))


# token programs


def mint_of(m: Model, name: str) -> Mint:
    account = m.accounts.get(name)
    need(account is not None and isinstance(account.data, Mint))
    assert account is not None
    assert isinstance(account.data, Mint)
    return account.data


def token_of(m: Model, name: str, mint: str) -> Token:
    """The token account of a mint, under the mint's own program."""
    token = m.token(name, m.accounts[mint].owner)
    need(token.mint == mint)
    return token


@handles("token.mint_to")
def mint_to(m: Model, c: Call) -> None:
    mint, token, amount = mint_of(m, c["mint"]), token_of(m, c["to"], c["mint"]), c.args["amount"]
    need(c["authority"] == mint.issuer and not token.frozen)
    need(mint.supply + amount < U64)
    mint.supply += amount
    token.amount += amount
    m.count(f"in/{c['to']}", amount)


@handles("token.transfer")
def transfer_tokens(m: Model, c: Call) -> None:
    source, target = token_of(m, c["from"], c["mint"]), token_of(m, c["to"], c["mint"])
    need(source.owner == c["authority"] and not source.frozen and not target.frozen)
    need(source.amount >= c.args["amount"])
    source.amount -= c.args["amount"]
    target.amount += c.args["amount"]
    m.count(f"in/{c['to']}", c.args["amount"])
    m.count(f"in/{c['from']}", -c.args["amount"])


@handles("token.freeze")
def freeze(m: Model, c: Call) -> None:
    mint, token = mint_of(m, c["mint"]), token_of(m, c["account"], c["mint"])
    need(mint.freezer == c["authority"] and not token.frozen)
    token.frozen = True


@handles("token.thaw")
def thaw(m: Model, c: Call) -> None:
    mint, token = mint_of(m, c["mint"]), token_of(m, c["account"], c["mint"])
    need(mint.freezer == c["authority"] and token.frozen)
    token.frozen = False


@handles("token.set_owner")
def set_owner(m: Model, c: Call) -> None:
    token = m.token(c["account"], m.accounts[c["mint"]].owner)  # it names no mint, only the program
    need(token.owner == c["authority"] and not token.frozen and not token.extended)
    token.owner = c.args["owner"]


@handles("token.close")
def close_token(m: Model, c: Call) -> None:
    token = m.token(c["account"], m.accounts[c["mint"]].owner)  # it names no mint, only the program
    need(token.owner == c["authority"] and token.amount == 0 and c["to"] != c["account"])
    m.close(c["account"], c["to"])


@handles("ata.create")
def create_ata(m: Model, c: Call) -> None:
    mint, owner, name = c["mint"], c["owner"], c["account"]
    mint_of(m, mint)
    need(m.same(name, f"ata/{mint}/{owner}"))
    program = m.accounts[mint].owner
    if m.is_unused(name):
        made = Token(mint, owner, 0, False, program == "TOKEN_2022")
        here = m.accounts.get(name)
        given = here is not None and here.lamports >= rent(made.size)
        need(given or c["payer"] in c.signers, "AccountNotSigner")
        m.create(name, made, program, c["payer"])
    else:
        need(token_of(m, name, mint).owner == owner)
