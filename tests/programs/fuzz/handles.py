"""A run that an episode plays with, and the operations that belong to it, as the JSON that is recorded."""

import hashlib
from dataclasses import dataclass
from typing import Any

from tests.programs.fuzz.accounts import Record
from tests.programs.fuzz.log import Log, account_size
from tests.programs.fuzz.model import Model
from tests.programs.fuzz.names import digest, token_program
from tests.programs.fuzz.packing import rent

Op = dict[str, Any]


def op(ix: str, acc: dict[str, Any], /, **args: Any) -> Op:
    """One instruction; keys are names, bytes are hexadecimal."""
    return {"ix": ix, "acc": acc, "args": args}


@dataclass
class Handle:
    """Names of everything that belongs to one run; the accounts may exist or not."""

    creator: str
    run_id: str
    state: str
    mint: str | None
    capacity: int
    join_authority: str
    spec: bytes
    payer: str = "rich"

    @property
    def run(self) -> str:
        return f"run/{self.creator}/{self.run_id}"

    @property
    def pool(self) -> str:
        return f"pool/{self.state}"

    def log(self, model: Model) -> Log | None:
        """The log, while it lives."""
        account = model.accounts.get(self.state)
        return account.data if account is not None and isinstance(account.data, Log) else None

    def record(self, model: Model, name: str) -> Record | None:
        account = model.accounts.get(name)
        return account.data if account is not None and isinstance(account.data, Record) else None

    def authority(self, model: Model) -> str:
        """Who may steer the run now."""
        record = self.record(model, self.pool if self.mint else self.run)
        return record.authority if record is not None else self.creator

    def base(self) -> dict[str, Any]:
        """Run, log and specification."""
        return {"run": self.run, "run_state": self.state, "spec": f"spec/{self.run}"}

    def tokens(self) -> dict[str, Any]:
        """Pool, vault and token program of a run that pays."""
        assert self.mint is not None
        return {
            "pool": self.pool,
            "mint": self.mint,
            "vault": f"ata/{self.mint}/{self.pool}",
            "token_program": token_program(self.mint),
        }

    def member(self, wallet: str) -> str:
        return f"member/{self.state}/{wallet}"

    # the creator's

    def create(self, size: int | None = None) -> list[Op]:
        """The log's account and the run, in one transaction."""
        space = account_size(self.capacity) if size is None else size
        new = op("system.create", {"from": self.payer, "new": self.state}, lamports=rent(space), space=space)
        args = {
            "run_id": self.run_id,
            "name": "A run",
            "description": f"of {self.creator}",
            "authority": self.creator,
            "join_authority": self.join_authority,
            "min_client_version": "0.1.0",
            "spec_len": len(self.spec),
            "spec_sha256": spec_hash(self.spec),
        }
        acc = {"payer": self.payer, **self.base()}
        if self.mint is None:
            return [new, op("coordinator.create_run", acc | {"creator": self.creator}, args=args)]
        acc |= {"authority": self.creator, **self.tokens()}
        return [new, op("treasurer.create_pool", acc, args=args)]

    def admin(self, model: Model, name: str, /, **args: Any) -> Op:
        """One of the authority's instructions, through the pool if there is one."""
        acc = {"authority": self.authority(model), **self.base()}
        if self.mint is not None:
            acc |= {"payer": self.payer, "pool": self.pool}
            variant = "".join(word.capitalize() for word in name.split("_"))
            return op("treasurer.update_pool", acc, action=[variant, args])
        if name == "write_spec":
            acc["payer"] = self.payer
        elif name in ("set_authority", "set_metadata"):
            acc = {k: acc[k] for k in ("authority", "run")}
        elif name not in ("reset_spec", "seal_spec"):
            acc.pop("spec")
        return op(f"coordinator.{name}", acc, **args)

    def close(self, model: Model, recipient: str) -> Op:
        """The end of run or pool."""
        authority = self.authority(model)
        if self.mint is None:
            acc = {"authority": authority, "recipient": recipient, **self.base()}
            return op("coordinator.close_run", acc)
        token = f"ata/{self.mint}/{authority}"
        acc = {"authority": authority, "authority_token": token, **self.base(), **self.tokens()}
        return op("treasurer.close_pool", acc)

    # the members'

    def join(self, wallet: str, tier: int, weight: int, authorization: str | None) -> Op:
        acc = {
            "payer": self.payer,
            "wallet": wallet,
            "run": self.run,
            "run_state": self.state,
            "membership": self.member(wallet),
            "authorization": authorization,
        }
        args = {
            "hot_key": "h" + wallet[1:],
            "p2p_key": digest("p2p " + wallet).hex(),
            "tier": tier,
            "weight": weight,
            "contact": "/ip4/127.0.0.1/tcp/4001",
        }
        return op("coordinator.join", acc, args=args)

    def duty(self, name: str, signer: str, slot: int, /, **args: Any) -> Op:
        return op(f"coordinator.{name}", {"signer": signer, "run_state": self.state}, slot=slot, **args)

    def tick(self) -> Op:
        return op("coordinator.tick", {"run_state": self.state})

    def settle(self, wallet: str) -> Op:
        return op("coordinator.settle", {"run_state": self.state, "membership": self.member(wallet)})

    def evict(self, wallet: str, authorization: str) -> Op:
        acc = {"run": self.run, "run_state": self.state, "membership": self.member(wallet)}
        return op("coordinator.evict", acc | {"authorization": authorization})

    def claim(self, wallet: str, payer: str) -> Op:
        acc = {
            "payer": payer,
            "wallet": wallet,
            "membership": self.member(wallet),
            "claim": f"claim/{self.state}/{wallet}",
            "wallet_token": f"ata/{self.mint}/{wallet}",
            "run": self.run,
            "run_state": self.state,
        }
        return op("treasurer.claim", acc | self.tokens())

    def close_claim(self, wallet: str) -> Op:
        acc = {"wallet": wallet, "pool": self.pool, "claim": f"claim/{self.state}/{wallet}"}
        return op("treasurer.close_claim", acc)

    def close_membership(self, wallet: str) -> Op:
        acc = {"wallet": wallet, "run_state": self.state, "membership": self.member(wallet)}
        return op("coordinator.close_membership", acc)


def spec_hash(spec: bytes) -> str:
    """What a specification is announced with."""
    return hashlib.sha256(spec).hexdigest()
