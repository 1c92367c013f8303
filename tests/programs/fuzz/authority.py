"""What a run's creator does: create, prepare, configure, steer, close; and what others do where no run is."""

import dataclasses
import random

from tests.programs.fuzz import rules
from tests.programs.fuzz.handles import Handle, Op, spec_hash
from tests.programs.fuzz.log import Log
from tests.programs.fuzz.model import Model
from tests.programs.fuzz.names import NUM_MINTS
from tests.programs.fuzz.wild import Wild

WALLETS = [f"w{i}" for i in range(8)]
CREATORS = ["c0", "c1"]
GRANTORS = ["g0", "g1"]
PEOPLE = ["rich", "issuer", "x0", *WALLETS, *CREATORS, *GRANTORS, *(f"h{i}" for i in range(8))]


class Authority:
    """The part of the generator that plays creators; `num_states` counts the keys of logs."""

    model: Model
    rng: random.Random
    wild: Wild
    wildness: float
    handles: list[Handle]
    num_states: int

    def new_handle(self) -> Handle:
        rng = self.rng
        capacity = 256 if rng.random() < 0.02 else rng.choice((1, 2, 3, 4, 4, 6, 8, 8, 16))
        creator = rng.choice(CREATORS)
        self.num_states += 1
        return Handle(
            creator=creator,
            run_id=rng.choice(("alpha", "beta", "gamma")) + str(self.num_states),
            state=f"s{self.num_states}",
            mint=f"m{rng.randrange(NUM_MINTS)}" if rng.random() < 0.6 else None,
            capacity=capacity,
            join_authority="zero" if rng.random() < 0.5 else rng.choice(GRANTORS),
            spec=rng.randbytes(rng.choice((1, 40, 300, 900))),
        )

    def without_log(self, h: Handle) -> list[Op]:
        """Before the run is created, or after it was closed."""
        roll, w = self.rng.random(), self.rng.choice(WALLETS)
        owed = [x for x in WALLETS if getattr(h.record(self.model, h.member(x)), "earned", 0)]
        if owed and roll < 0.8:
            w = self.rng.choice(owed)
        if h.mint is not None and h.pool in self.model.accounts and roll < 0.75:
            if roll < 0.4:
                return [h.claim(w, "rich")]
            return self.close_pool(h) if roll < 0.65 else self.fund_pool(h)
        if roll < 0.7:
            return self.recreate(h)
        if roll < 0.85:
            return [h.close_membership(w) if h.mint is None or roll < 0.77 else h.close_claim(w)]
        return [h.settle(w)] if h.mint is None or roll < 0.92 else [h.claim(w, "rich")]

    def recreate(self, h: Handle) -> list[Op]:
        """Create: under a fresh key, or under one that was used before, with the old pool or beside it."""
        rng = self.rng
        used = h.state in self.wild.created
        if used and rng.random() < 0.4:
            fresh = self.new_handle()
            h.state, h.capacity, h.mint = fresh.state, fresh.capacity, fresh.mint
        elif used and h.mint is not None and rng.random() < 0.3 and len(self.handles) < 6:
            h = dataclasses.replace(h, mint=None)
            self.handles.append(h)
        self.wild.created.add(h.state)
        return h.create()

    def close_pool(self, h: Handle) -> list[Op]:
        """The end of a run or pool; its authority needs a token account for the rest."""
        if h.mint is not None:
            token = f"ata/{h.mint}/{h.authority(self.model)}"
            if token not in self.model.accounts:
                return [self.wild.ata(h.authority(self.model), h.mint)]
        return [h.close(self.model, self.rng.choice((h.creator, "x0", "rich")))]

    def fund_pool(self, h: Handle, owed: int = 0) -> list[Op]:
        if h.mint is None:
            return []
        amount = self.rng.choice((0, 1, 50, 1000, owed, owed + 1, max(owed - 1, 0), 10**7)) % (1 << 60)
        return [self.wild.mint_to(h.mint, f"ata/{h.mint}/{h.pool}", amount)]

    def prepare(self, h: Handle, log: Log) -> list[Op]:
        """Write, seal, configure: whatever is missing."""
        spec = h.record(self.model, f"spec/{h.run}")
        if spec is None or (log.configured and log.sealed):
            return []
        if not log.configured and (log.sealed or self.rng.random() < 0.4):
            return self.configure(h, log)
        done = spec.len
        if done < len(h.spec):
            piece = h.spec[done : done + self.rng.choice((400, 700))]
            write = h.admin(self.model, "write_spec", offset=done, bytes=piece.hex())
            return [write]
        return [h.admin(self.model, "seal_spec")]

    def configure(self, h: Handle, log: Log) -> list[Op]:
        rng = self.rng
        most = min(log.capacity, rng.choice((1, 2, 3, 5)))
        start = rng.choice((1, 4, 8, 100))
        config = {
            "warmup_time": rng.choice((1, 10, 60)),
            "cooldown_time": rng.choice((1, 10, 60)),
            "max_round_train_time": rng.choice((1, 10, 60)),
            "round_witness_time": rng.choice((1, 10, 60)),
            "epoch_time": rng.choice((5, 100, 1000, 10_000)),
            "waiting_for_members_extra_time": rng.choice((0, 0, 5, 60)),
            "global_batch_size_warmup_tokens": rng.choice((0, 0, 1000)),
            "total_steps": log.step + rng.choice((1, 3, 6, 10, 50)),
            "global_batch_size_start": start,
            "global_batch_size_end": start + rng.choice((0, 0, 7, 1000)),
            "max_seq_len": rng.choice((1, 16, 4096)),
            "pay_per_tier": [rng.choice((0, 1, 1, 2, 3, 7, 1_000_000)) for _ in range(4)],
            "init_min_clients": most,
            "min_clients": rng.randint(1, most),
            "min_full_members": 1,
            "witness_nodes": rng.choice((0, 0, 1, 2, 3)),
            "max_missed": rng.choice((1, 2, 3, 3)),
            "max_failed_warmups": rng.choice((1, 2, 3)),
            "max_tier": rng.choice((0, 1, 1, 2)),
        }
        if rng.random() < self.wildness:
            field = rng.choice([f for f in config if f != "pay_per_tier"])
            config[field] = rng.choice((0, 255)) if field == "max_tier" else rng.choice((0, 65_535))
        return [h.admin(self.model, "configure", config=config)]

    def resume(self, h: Handle, _log: Log) -> list[Op]:
        return [h.admin(self.model, "set_paused", paused=False)]

    def admin_misc(self, h: Handle, log: Log) -> list[Op]:
        rng, m = self.rng, self.model
        roll = rng.random()
        if roll < 0.45 and (log.phase not in rules.HALTED or roll < 0.3):
            rate = rng.choice(
                (0, 1, 7, 100, 1000, 999_983, 10**9, rng.randrange(10**6), 1 << 62, (1 << 62) + 1)
            )
            return [h.admin(m, "set_round_rate", rate=rate)]
        if roll < 0.75:
            return [h.admin(m, "set_paused", paused=rng.random() < 0.6 or not log.pause_requested)]
        if roll < 0.82:
            texts = {"name": "n" * rng.choice((1, 64, 65)), "description": "", "min_client_version": "0.2"}
            join_authority = h.join_authority if rng.random() < 0.8 else rng.choice([*GRANTORS, "zero"])
            return [h.admin(m, "set_metadata", **texts, join_authority=join_authority)]
        if roll < 0.9:
            spec = rng.randbytes(rng.choice((1, 40, 300)))
            if log.phase in rules.HALTED:
                h.spec = spec
            return [h.admin(m, "reset_spec", spec_len=len(spec), spec_sha256=spec_hash(spec))]
        return [h.admin(m, "set_authority", authority=rng.choice([*CREATORS, h.creator, "x0", "zero"]))]
