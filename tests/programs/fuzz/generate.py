"""What happens next: mostly what a sensible party would do now, sometimes anything at all.

The generator looks at the model, never at the chain, and every choice comes out of one seeded source of numbers.
What it returns is recorded as it is, so a replay needs neither this module nor the seed.
"""

import random
from collections.abc import Callable
from typing import Any

from tests.programs.fuzz import rules
from tests.programs.fuzz.authority import GRANTORS, PEOPLE, WALLETS, Authority
from tests.programs.fuzz.handles import Handle, Op, op
from tests.programs.fuzz.log import (
    ACTIVE,
    COOLDOWN,
    DEPARTED,
    FINISHED,
    FREE,
    PAUSED,
    TRAIN,
    UNINITIALIZED,
    WAITING,
    WARMUP,
    WITNESS,
    Log,
    bits,
)
from tests.programs.fuzz.model import Model, signers_of
from tests.programs.fuzz.names import digest
from tests.programs.fuzz.wild import Wild

MAX_RUNS = 3
Choices = list[tuple[float, Callable[[Handle, Log], list[Op]]]]


class Generator(Authority):
    """Makes up one episode, transaction by transaction."""

    def __init__(self, model: Model, seed: str) -> None:
        self.model = model
        self.rng = random.Random(seed)
        self.handles: list[Handle] = []
        self.num_states = 0
        self.wild = Wild(model, self.rng, self.handles, PEOPLE)
        self.wildness = self.rng.choice((0.02, 0.1, 0.1, 0.25))

    def next(self) -> dict[str, Any]:
        """The next thing: a move of the clock, or a transaction."""
        rng = self.rng
        if not self.handles or (len(self.handles) < MAX_RUNS and rng.random() < 0.01):
            self.handles.append(self.new_handle())
        handle = rng.choice(self.handles)
        log = handle.log(self.model)
        if rng.random() < (0.04 if log is None else CLOCK[log.phase]):
            return {"clock": [self.seconds(log), rng.choice((0, 1, 1, 1, 2))]}
        ops = self.wild.outside(handle) if rng.random() < 0.04 else self.sensible(handle, log)
        while rng.random() < 0.03:
            other = rng.choice(self.handles)
            ops = ops + self.sensible(other, other.log(self.model))
        if rng.random() < self.wildness:
            ops = self.wild.change(handle, ops)
        ops = ops[:6]
        payer = "rich" if rng.random() < 0.8 else rng.choice(WALLETS)
        tx = {"payer": payer, "ops": ops}
        if any("/" in name for name in signers_of(tx)):  # a derived address cannot sign
            tx["ops"] = [handle.tick()]
        return tx

    def seconds(self, log: Log | None) -> int:
        rng = self.rng
        if log is not None and log.configured and rng.random() < 0.55:
            c = log.config
            wait = {
                WAITING: c["waiting_for_members_extra_time"],
                WARMUP: c["warmup_time"],
                TRAIN: c["max_round_train_time"],
                WITNESS: c["round_witness_time"],
                COOLDOWN: c["cooldown_time"],
            }.get(log.phase, 1)
            left = log.phase_start + wait - self.model.now
            return max(left - rng.choice((0, 0, 1, -1)), 0)
        return rng.choice((0, 1, 1, 2, 10, 60, 1000, 2_592_000, rng.randrange(10**9)))

    # sensible things by phase

    def sensible(self, handle: Handle, log: Log | None) -> list[Op]:
        """One or more instructions that fit the run's phase."""
        if log is None:
            return self.without_log(handle)
        choices = self.choices(log)
        _, action = self.rng.choices(choices, [w for w, _ in choices])[0]
        return action(handle, log) or [handle.tick()]

    def choices(self, log: Log) -> Choices:
        always: Choices = [
            (2, self.settle),
            (2, self.claim),
            (0.6, self.admin_misc),
            (0.3, self.contact),
            (0.4, self.close_membership),
            (0.5, self.evict),
            (0.5, self.stray),
            (0.5, self.close),
            (0.7, self.fund),
            (1, self.join),
            (0.5, self.leave),
            (0.6, self.grant),
        ]
        tick: Choices = [(2, lambda h, _log: [h.tick()])]
        more: Choices = {
            UNINITIALIZED: [(12, self.prepare)],
            PAUSED: [
                (6, self.resume),
                (4, self.join),
                (1, self.configure),
                (2, self.close),
                (1, self.settle),
            ],
            WAITING: [(25, self.join), (3, self.grant), *tick],
            WARMUP: [(30, self.ready), *tick],
            TRAIN: [(60, self.duty), (2, self.ready), *tick],
            WITNESS: [(25, self.duty), (4, self.ready), *tick],
            COOLDOWN: [(30, self.agree), *tick],
            FINISHED: [(6, self.settle), (6, self.claim), (6, self.close), (1, self.configure)],
        }[log.phase]
        return always + more

    # members

    def a_slot(self, log: Log, *status: int) -> int | None:
        found = [i for i, s in enumerate(log.slots) if s.status in status]
        return self.rng.choice(found) if found else None

    def signer(self, log: Log, slot: int) -> str:
        place = log.slots[slot]
        return place.wallet if place.hot_key == "zero" or self.rng.random() < 0.2 else place.hot_key

    def join(self, h: Handle, log: Log) -> list[Op]:
        rng = self.rng
        here = {s.wallet for s in log.slots if s.present}
        away = [w for w in WALLETS if w not in here]
        full = len(here) >= log.capacity
        if log.phase == WAITING and (full or not away) and rng.random() < 0.9:
            return self.stir(h, log)
        wallet = rng.choice(away) if away and rng.random() < 0.9 else rng.choice(WALLETS)
        old = next((s for s in log.slots if s.status == DEPARTED and s.wallet == wallet), None)
        top = log.config.get("max_tier", 1)
        tier, weight = (old.tier, old.weight) if old else (rng.choice((0, 0, rng.randint(0, top))), 1)
        run = h.record(self.model, h.run)
        authorization = None
        if run is not None and run.join_authority != "zero":
            name = f"auth/{run.join_authority}/{wallet}"
            mine = [wallet, *(w for w in WALLETS if self.lends(run.join_authority, w, wallet))]
            authorization = f"auth/{run.join_authority}/{rng.choice(mine)}"
            grant = h.record(self.model, authorization)
            if grant is None or not grant.active:
                return self.grant_for(run.join_authority, wallet)
            weight = weight if old else rng.randint(1, max(1, min(grant.max_weight, 9)))
            tier = max(tier, min(grant.min_tier, top))
            authorization = authorization or name
        return [h.join(wallet, tier, weight, authorization)]

    def stir(self, h: Handle, log: Log) -> list[Op]:
        """Nobody can come any more: somebody leaves, the rules change, or time passes."""
        if self.rng.random() < 0.5 and not rules.enough_present(log):
            wrong = [i for i, s in enumerate(log.slots) if s.present and s.next_tier > 0]
            slot = self.rng.choice(wrong) if wrong else self.a_slot(log, 1)
            if slot is not None:
                return [h.duty("leave", self.signer(log, slot), slot)]
        if self.rng.random() < 0.3:
            return [h.admin(self.model, "set_paused", paused=True)]
        return []

    def lends(self, grantor: str, grantee: str, wallet: str) -> bool:
        account = self.model.accounts.get(f"auth/{grantor}/{grantee}")
        return account is not None and wallet in getattr(account.data, "delegates", ())

    def grant_for(self, grantor: str, grantee: str) -> list[Op]:
        """Bring an authorization one step closer to being active."""
        name = f"auth/{grantor}/{grantee}"
        if name not in self.model.accounts:
            acc = {"payer": "rich", "grantor": grantor, "authorization": name}
            rng = self.rng
            args = {"scope": b"CoordinatorJoinRun".hex(), "max_weight": rng.choice((1, 5, 500, 65_535))}
            create = op("authorizer.create", acc, grantee=grantee, min_tier=rng.choice((0, 0, 0, 1)), **args)
            return [create] if rng.random() < 0.3 else [create, self.activate(grantor, name)]
        return [self.activate(grantor, name)]

    def activate(self, grantor: str, name: str, active: bool = True) -> Op:
        return op("authorizer.set_active", {"grantor": grantor, "authorization": name}, active=active)

    def grant(self, h: Handle, _log: Log) -> list[Op]:
        rng = self.rng
        grantor, grantee = rng.choice(GRANTORS), rng.choice(WALLETS)
        name = f"auth/{grantor}/{grantee}"
        roll = rng.random()
        if name not in self.model.accounts or roll < 0.2:
            return self.grant_for(grantor, grantee)
        if roll < 0.5:
            return [self.activate(grantor, name, active=rng.random() < 0.3)]
        if roll < 0.6:
            limits = {"max_weight": rng.choice((0, 1, 5)), "min_tier": rng.choice((0, 1, 2))}
            return [op("authorizer.set_limits", {"grantor": grantor, "authorization": name}, **limits)]
        if roll < 0.85:
            add = rng.sample([*WALLETS, "x0"], rng.choice((0, 1, 1, 3)))
            acc = {"payer": "rich", "grantee": grantee, "authorization": name}
            return [op("authorizer.set_delegates", acc, add=add, clear=rng.random() < 0.4)]
        acc = {"grantor": grantor, "recipient": rng.choice((grantor, "x0")), "authorization": name}
        return [op("authorizer.close", acc)]

    def ready(self, h: Handle, log: Log) -> list[Op]:
        late = [i for i, s in enumerate(log.slots) if s.status == ACTIVE and not s.ready]
        if not late:
            return []
        slot = self.rng.choice(late)
        return [h.duty("ready", self.signer(log, slot), slot)]

    def duty(self, h: Handle, log: Log) -> list[Op]:
        """A commit or an attestation that is due."""
        rng = self.rng
        due: list[Op] = []
        before = rules.attested_round(log)
        if before is not None:
            for i in bits(before.witnesses & ~before.attested):
                if log.slots[i].status == ACTIVE:
                    mask = before.committed
                    if rng.random() < 0.25:
                        mask &= rng.getrandbits(256)
                    value = mask.to_bytes(32, "little").hex()
                    due.append(h.duty("witness", self.signer(log, i), i, round=before.number, bitmap=value))
        now = log.rounds[log.open]
        if log.phase == TRAIN:
            for i in bits(now.assigned & ~now.committed):
                if log.slots[i].status == ACTIVE:
                    value = digest(f"{h.state} {i} {now.number}").hex()
                    due.append(h.duty("commit", self.signer(log, i), i, round=now.number, hash=value))
        return [rng.choice(due)] if due else []

    def agree(self, h: Handle, log: Log) -> list[Op]:
        """A vote on the weights, or the record of where they are."""
        rng = self.rng
        if log.pending.agreed:
            slot = log.uploader if log.uploader < log.capacity and rng.random() < 0.8 else None
            slot = self.a_slot(log, ACTIVE) if slot is None else slot
            if slot is None or log.slots[slot].status == FREE:
                return []
            uri = rng.choice(("hub://somebody/weights", "u", "u" * 128))
            return [h.duty("record_checkpoint", self.signer(log, slot), slot, uri=uri)]
        voters = [i for i, s in enumerate(log.slots) if s.status == ACTIVE and not s.voted]
        if not voters:
            return []
        slot = rng.choice(voters)
        word = "weights" if rng.random() < 0.9 else "other weights"
        parts = range(max(log.config["max_tier"] - log.slots[slot].tier + 1, 0))
        digests = [digest(f"{word} {log.step} {part}").hex() for part in parts]
        step = log.pending.step
        return [h.duty("attest_checkpoint", self.signer(log, slot), slot, step=step, digests=digests)]

    def stray(self, h: Handle, log: Log) -> list[Op]:
        """A duty that is somebody else's, or of another phase."""
        rng, slot = self.rng, self.a_slot(log, 1, ACTIVE, DEPARTED)
        if slot is None:
            return []
        signer, before = self.signer(log, slot), log.rounds[(log.open - 1) & 3]
        every = before.committed.to_bytes(32, "little").hex()
        digests = [digest(f"weights {log.step} {part}").hex() for part in range(rng.randint(0, 3))]
        return [
            rng.choice(
                (
                    h.duty("ready", signer, slot),
                    h.duty("commit", signer, slot, round=log.rounds[log.open].number, hash="11" * 32),
                    h.duty("witness", signer, slot, round=before.number, bitmap=every),
                    h.duty("attest_checkpoint", signer, slot, step=log.pending.step, digests=digests),
                    h.duty("record_checkpoint", signer, slot, uri="hub://stray"),
                )
            )
        ]

    def leave(self, h: Handle, log: Log) -> list[Op]:
        slot = self.a_slot(log, 1, ACTIVE)
        return [] if slot is None else [h.duty("leave", self.signer(log, slot), slot)]

    def contact(self, h: Handle, _log: Log) -> list[Op]:
        wallet = self.rng.choice(WALLETS)
        signer = self.rng.choice((wallet, "h" + wallet[1:]))
        acc = {"signer": signer, "membership": h.member(wallet)}
        return [op("coordinator.update_contact", acc, contact="c" * self.rng.choice((0, 20, 128, 129)))]

    # anybody

    def member_of(self, h: Handle, log: Log) -> str:
        """A wallet that most likely has something to settle or to claim."""
        slot = self.a_slot(log, 1, ACTIVE, DEPARTED)
        if slot is not None and self.rng.random() < 0.7:
            return log.slots[slot].wallet
        return self.rng.choice(WALLETS)

    def settle(self, h: Handle, log: Log) -> list[Op]:
        return [h.settle(self.member_of(h, log))]

    def claim(self, h: Handle, log: Log) -> list[Op]:
        wallet = self.member_of(h, log)
        if h.mint is None:
            return [h.settle(wallet)]
        return [h.claim(wallet, self.rng.choice(("rich", wallet)))]

    def evict(self, h: Handle, log: Log) -> list[Op]:
        wallet = self.member_of(h, log)
        for slot in log.slots if self.rng.random() < 0.8 else ():
            member = h.record(self.model, h.member(slot.wallet)) if slot.present else None
            grant = h.record(self.model, member.authorization) if member is not None else None
            if member is not None and member.authorization != "zero" and (grant is None or not grant.active):
                wallet = slot.wallet
        member = h.record(self.model, h.member(wallet))
        return [h.evict(wallet, member.authorization if member else "zero")]

    def close_membership(self, h: Handle, _log: Log) -> list[Op]:
        if h.mint is not None and self.rng.random() < 0.2:
            return [h.close_claim(self.rng.choice(WALLETS))]
        return [h.close_membership(self.rng.choice(WALLETS))]

    def close(self, h: Handle, _log: Log) -> list[Op]:
        return self.close_pool(h)

    def fund(self, h: Handle, log: Log) -> list[Op]:
        return self.fund_pool(h, log.total_earned)


CLOCK = {
    UNINITIALIZED: 0.02,
    WAITING: 0.06,
    WARMUP: 0.08,
    TRAIN: 0.08,
    WITNESS: 0.12,
    COOLDOWN: 0.1,
    FINISHED: 0.03,
    PAUSED: 0.03,
}
