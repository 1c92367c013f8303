"""What no sensible party does: wrong signers, slots, rounds and accounts, huge numbers, gifts, thefts."""

import copy
import random

from tests.programs.fuzz.handles import Handle, Op, op
from tests.programs.fuzz.log import account_size
from tests.programs.fuzz.model import FIXED_ACCOUNTS, IDLS, Model, signer_accounts
from tests.programs.fuzz.names import digest

HUGE = (0, 1, 255, 65_535, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)
WIDTHS = {"slot": 1 << 16, "round": 1 << 64, "step": 1 << 64, "rate": 1 << 64, "offset": 1 << 32}
WIDTHS |= {"tier": 1 << 8, "weight": 1 << 16, "max_weight": 1 << 16, "min_tier": 1 << 8, "spec_len": 1 << 32}
STRANGE = {
    "uri": ("", "with space", "u" * 129),
    "bitmap": ("ff" * 32, "00" * 32, "01" + "00" * 31),
    "digests": ([], ["11" * 32], ["11" * 32] * 4),
    "p2p_key": (*(digest(f"p2p w{i}").hex() for i in range(4)), "00" * 32),
    "hot_key": ("zero", "rich", "w0"),
    "name": ("n" * 65,),
    "description": ("d" * 281,),
    "min_client_version": ("v" * 33,),
    "run_id": ("UPPER", "", "a" * 33, "a_b"),
    "spec_sha256": ("00" * 32,),
    "contact": ("c" * 129,),
    "add": (["w0", "w0"], [f"d{i}" for i in range(65)], [f"d{i}" for i in range(40)]),
    "join_authority": ("zero", "g0", "g1"),
}


class Wild:
    """Turns sensible instructions into others, and makes up those of the other programs."""

    def __init__(self, model: Model, rng: random.Random, handles: list[Handle], people: list[str]) -> None:
        self.model = model
        self.rng = rng
        self.handles = handles
        self.people = people
        self.created: set[str] = set()

    def change(self, handle: Handle, ops: list[Op]) -> list[Op]:
        """One thing goes wrong, or something is added."""
        ops = copy.deepcopy(ops)
        chosen = self.rng.choice(ops)
        how = self.rng.choice(
            (self.other_value, self.other_number, self.other_account, self.other_account, self.other_signer)
        )
        roll = self.rng.random()
        if roll < 0.07:
            signers = signer_accounts(chosen["ix"])
            if signers:
                chosen["unsigned"] = [self.rng.choice(signers)]
        elif roll < 0.13:
            ops.insert(self.rng.randrange(len(ops) + 1), handle.tick())
        elif roll < 0.18:
            ops.append(copy.deepcopy(chosen))
        elif roll < 0.25:
            ops.insert(self.rng.randrange(len(ops) + 1), self.outside(handle)[0])
        elif roll < 0.28:
            ops = handle.create(self.rng.choice((0, 8, 100, account_size(3) + 1, account_size(2), 10_000)))
            self.created.add(handle.state)
        else:
            how(chosen)
        return ops if all(self.is_clear(o) for o in ops) else [handle.tick()]

    def other_number(self, chosen: Op) -> None:
        args = chosen["args"]
        args = args.get("args", args)
        numbers = [k for k in args if k in WIDTHS]
        if not numbers:
            return self.other_account(chosen)
        name = self.rng.choice(numbers)
        near = args[name] + self.rng.choice((-1, 1, 2))
        args[name] = (near if self.rng.random() < 0.6 else self.rng.choice(HUGE)) % WIDTHS[name]
        return None

    def other_value(self, chosen: Op) -> None:
        """Texts, sets, keys and rules that are too long, too many or wrong."""
        rng, args, acc = self.rng, chosen["args"], chosen["acc"]
        if "action" in args:
            args = args["action"][1]
        args = args.get("args", args)
        found = [k for k in args if k in STRANGE or k == "config"]
        if not found:
            return self.other_number(chosen)
        name = rng.choice(found)
        if name == "config":
            field = rng.choice(list(args["config"]))
            wide = rng.choice((0, 3, 255, 65_535))
            narrow = {"max_tier": min(wide, 255), "pay_per_tier": [1, 1_000_001, 0, 1]}
            args["config"][field] = narrow.get(field, wide)
        else:
            args[name] = rng.choice(STRANGE[name])
        if name == "run_id":
            acc["run"] = f"run/{acc.get('creator') or acc['authority']}/{args[name][:32]}"
            acc["spec"] = f"spec/{acc['run']}"
        return None

    def other_signer(self, chosen: Op) -> None:
        """Somebody else signs: a person, or the key of a log."""
        signers = signer_accounts(chosen["ix"])
        if signers:
            states = [n for n in self.model.accounts if n[0] == "s" and "/" not in n]
            chosen["acc"][self.rng.choice(signers)] = self.rng.choice([*self.people, *states[:3]])

    def other_account(self, chosen: Op) -> None:
        """An account of another kind, of another run or of another wallet."""
        acc = chosen["acc"]
        role = self.rng.choice(list(acc))
        if role in ("mint", "token_program") and not chosen["ix"].startswith("treasurer"):
            return None
        if role == "authorization" and chosen["ix"] == "coordinator.join" and self.rng.random() < 0.3:
            acc[role] = None
            return None
        if role == "recipient" and self.rng.random() < 0.3:
            acc[role] = acc.get("run_state", acc[role])
            return None
        if role in signer_accounts(chosen["ix"]):
            return self.other_signer(chosen)  # derived addresses cannot sign
        if role == "token_program":
            acc[role] = self.rng.choice(("TOKEN", "TOKEN_2022", "SYSTEM"))
            return None
        kind = (acc[role] or "auth/").partition("/")[0].rstrip("0123456789")
        alike = [n for n in self.model.accounts if n.partition("/")[0].rstrip("0123456789") == kind]
        anything = self.rng.random() < 0.3 or not alike
        acc[role] = self.rng.choice(list(self.model.accounts) if anything else alike)
        return None

    def is_clear(self, chosen: Op) -> bool:
        """Whether no two writable accounts are the same: the adversary's tests cover those."""
        program, _, name = chosen["ix"].partition(".")
        acc = chosen["acc"]
        if program not in IDLS:
            return len(set(acc.values())) == len(acc) and self.is_token_op_clear(chosen)
        seen: set[str] = set()
        for a in IDLS[program].instructions[name]["accounts"]:
            named = acc.get(a["name"]) or FIXED_ACCOUNTS.get(a["name"])
            if a.get("writable") and not a.get("signer") and a["name"] != "recipient":
                if named in seen:
                    return False
                seen.add(named)
        return True

    def is_token_op_clear(self, chosen: Op) -> bool:
        """Whether the mint is one, so that the instruction goes to its program."""
        mint = chosen["acc"].get("mint")
        return mint is None or (mint[0] == "m" and "/" not in mint)

    # the other programs

    def mint_to(self, mint: str, to: str, amount: int) -> Op:
        return op("token.mint_to", {"mint": mint, "to": to, "authority": "issuer"}, amount=amount)

    def ata(self, owner: str, mint: str) -> Op:
        return op(
            "ata.create", {"payer": "rich", "account": f"ata/{mint}/{owner}", "owner": owner, "mint": mint}
        )

    def outside(self, h: Handle) -> list[Op]:
        """Gifts of lamports to any account, and whatever can be done to token accounts."""
        rng = self.rng
        names = [n for n in self.model.accounts if not n.isupper()]
        if rng.random() < 0.35 or h.mint is None:
            to = rng.choice(names) if rng.random() < 0.7 else self.future(h)
            source = rng.choice(("rich", "x0")) if rng.random() < 0.9 else h.state
            if to == source:
                to = "issuer" if source != "issuer" else "rich"
            lamports = rng.choice((0, 1, 1000, 890_879, 890_880, 5_000_000))
            return [op("system.transfer", {"from": source, "to": to}, lamports=lamports)]
        mint = h.mint
        tokens = [n for n in names if n.startswith(f"ata/{mint}/")]
        if not tokens or rng.random() < 0.2:
            return [self.ata(rng.choice([*self.people, h.pool]), mint)]
        token = rng.choice(tokens)
        data = self.model.accounts[token].data
        owner = data.owner if "/" not in data.owner else h.creator  # type: ignore[union-attr]
        amount = rng.choice((0, 1, 1000, data.amount))  # type: ignore[union-attr]
        roll = rng.random()
        if roll < 0.25:
            return [self.mint_to(mint, token, rng.choice((1, 1000, (1 << 64) - 1)))]
        if roll < 0.5:
            to = rng.choice(tokens)
            if to != token:
                acc = {"from": token, "to": to, "authority": owner, "mint": mint}
                return [op("token.transfer", acc, amount=amount)]
        acc = {"account": token, "mint": mint, "authority": "issuer"}
        if roll < 0.62:
            return [op("token.freeze", acc)]
        if roll < 0.8:
            return [op("token.thaw", acc)]
        acc["authority"] = owner
        if roll < 0.9:
            return [op("token.set_owner", acc, owner=rng.choice(self.people))]
        return [op("token.close", acc | {"to": "x0"})]

    def future(self, h: Handle) -> str:
        """An address that may become an account later."""
        wallet = self.rng.choice([p for p in self.people if p[0] == "w"])
        state = self.rng.choice((h.state, f"s{self.rng.randrange(1, 9)}"))
        names = [
            f"pool/{state}",
            h.run,
            f"spec/{h.run}",
            f"member/{state}/{wallet}",
            f"claim/{state}/{wallet}",
        ]
        names += [f"auth/g0/{wallet}", state]
        return self.rng.choice(names)
