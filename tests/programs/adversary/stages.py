"""Runs in every phase, each twice: by different creators, with the same wallets as members.

The second of a pair is what an adversary can set up without anybody's leave, and what it will try to mix with the
first: same mint, same wallets, same phase; other slots, other hot keys, higher pay.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.programs.adversary.world import World
from tests.programs.chain_harness import TOKEN_2022, Grant, Member, Run, config

RATE = 1000
LONG = 100_000_000
CALM = dict.fromkeys(
    ("warmup_time", "cooldown_time", "max_round_train_time", "round_witness_time", "epoch_time"), LONG
)


@dataclass
class Stage:
    """A run and its members; the scenes act on it."""

    run: Run
    members: list[Member] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)


class Stages:
    """Builds stages on one world and names everything in them."""

    def __init__(self, world: World) -> None:
        self.world, self.chain = world, world.chain
        self.wallets = [self.chain.keypair() for _ in range(3)]
        self.paid_wallets = [self.chain.keypair() for _ in range(3)]
        """Of members that have a token account already."""
        self.issuer, self.join_authority = self.chain.keypair(), self.chain.keypair()
        self.mint = self.chain.mint(self.issuer)
        self.other_mint = self.chain.mint(self.issuer)
        self.foreign_mint = self.chain.mint(self.issuer, TOKEN_2022)
        self.stranger = self.chain.keypair()
        self.stranger_token = self.chain.token_account(self.mint, self.stranger.pubkey())
        self.keys: dict[str, Keypair] = {}
        self.pairs: dict[str, tuple[Stage, Stage]] = {}

    def build(self, name: str, make: Callable[["Stages", int], Stage]) -> tuple[Stage, Stage]:
        """The pair of that name; made when first asked for."""
        if name not in self.pairs:
            self.pairs[name] = (make(self, 0), make(self, 1))
            for n, stage in enumerate(self.pairs[name]):
                self.track(f"{name}{n + 1}", stage)
        return self.pairs[name]

    def track(self, name: str, stage: Stage) -> None:
        for part, key in stage.run.accounts.items():
            self.world.name(f"{name}.{part}", key)
        for n, member in enumerate(stage.members):
            for part, key in stage.run.member_accounts(member).items():
                self.world.name(f"{name}.member{n}.{part}", key)
        for n, grant in enumerate(stage.grants):
            self.world.name(f"{name}.grant{n}", grant.key)

    def name_all(self) -> None:
        """Names of what belongs to no stage."""
        for name, key in (
            ("mint", self.mint),
            ("other mint", self.other_mint),
            ("token-2022 mint", self.foreign_mint),
            ("stranger", self.stranger.pubkey()),
            ("stranger's token account", self.stranger_token),
            ("join authority", self.join_authority.pubkey()),
            ("nobody", Keypair.from_seed(hashlib.sha256(b"nobody").digest()).pubkey()),
        ):
            self.world.name(name, key)

    def named_key(self, name: str) -> Keypair:
        """A wallet with money under that name; the same one each time."""
        if name not in self.keys:
            self.keys[name] = self.chain.keypair()
            self.world.name(name, self.keys[name].pubkey())
        return self.keys[name]

    # pieces

    def run(self, n: int, *, paid: bool = False, join_authority: Pubkey | None = None) -> Run:
        run = Run(self.chain, run_id=f"run-{n}", mint=self.mint if paid else None)
        if join_authority is not None:
            run.join_authority = join_authority
        run.create()
        if paid:
            self.chain.token_account(self.mint, run.creator.pubkey())
        return run

    def configured(
        self, n: int, *, paid: bool = False, join_authority: Pubkey | None = None, **changes: int
    ) -> Run:
        run = self.run(n, paid=paid, join_authority=join_authority)
        run.write_spec()
        run.act("seal_spec")
        run.act("configure", config=config(**CALM | changes))
        run.act("set_round_rate", rate=RATE * (n + 1))
        return run

    def members(self, wallets: list[Keypair] | None = None) -> list[Member]:
        """Three members, the first of tier 0, with hot keys of their own."""
        return [
            Member(w, self.chain.fresh_key(), hashlib.sha256(bytes(w.pubkey())).digest(), tier=min(i, 1))
            for i, w in enumerate(wallets or self.wallets)
        ]

    def start(self, run: Run, members: list[Member], n: int) -> Stage:
        """Resume and let them join; into the second run of a pair the other way round."""
        run.act("set_paused", paused=False)
        for member in members[:: -1 if n else 1]:
            run.join(member)
        return Stage(run, members)


def created(s: Stages, n: int) -> Stage:
    return Stage(s.run(n))


def created_pool(s: Stages, n: int) -> Stage:
    return Stage(s.run(n, paid=True))


def written(s: Stages, n: int) -> Stage:
    stage = created(s, n)
    stage.run.write_spec()
    return stage


def written_pool(s: Stages, n: int) -> Stage:
    stage = created_pool(s, n)
    stage.run.write_spec()
    return stage


def paused(s: Stages, n: int) -> Stage:
    return Stage(s.configured(n))


def paused_pool(s: Stages, n: int) -> Stage:
    return Stage(s.configured(n, paid=True))


def waiting(s: Stages, n: int) -> Stage:
    """Two members are there, the third is missing."""
    members = s.members()
    stage = s.start(s.configured(n), members[:2], n)
    stage.members = members
    return stage


def warmup(s: Stages, n: int) -> Stage:
    """Two of three are ready."""
    stage = waiting(s, n)
    stage.run.join(stage.members[2])
    for member in stage.members[:2]:
        stage.run.duty("ready", member)
    return stage


def departed(s: Stages, n: int) -> Stage:
    """Halted; the first member left and has nothing in the run any more, the second left and is not settled."""
    stage = waiting(s, n)
    stage.run.act("set_paused", paused=True)
    for member in stage.members[:2]:
        stage.run.duty("leave", member)
    stage.run.settle(stage.members[0])
    return stage


def training(s: Stages, n: int) -> Stage:
    """In round 2 the third member's commitment and its attestation of round 1 are missing."""
    stage = warmup(s, n)
    run = stage.run
    run.duty("ready", stage.members[2])
    run.play_round(stage.members)
    before = next(r for r in run.state.rounds if r.number == run.state.open.number - 1)
    bits = sum(1 << s for s in before.committed).to_bytes(32, "little")
    for member in stage.members[:2]:
        run.duty("witness", member, round=before.number, bitmap=bits)
        run.duty("commit", member, round=run.state.open.number, hash=bytes([member.slot + 1] * 32))
    return stage


def cooldown(s: Stages, n: int) -> Stage:
    """The epoch is over; only the first member has attested the weights."""
    stage = s.start(s.configured(n), s.members(), n)
    stage.run.play_epoch(stage.members)
    stage.run.duty(
        "attest_checkpoint", stage.members[0], step=stage.run.state.step, digests=digests(stage.members[0])
    )
    return stage


def agreed(s: Stages, n: int) -> Stage:
    """The weights are agreed on; their uri is missing."""
    stage = cooldown(s, n)
    for member in stage.members[1:]:
        args = {"step": stage.run.state.step, "digests": digests(member)}
        stage.run.duty("attest_checkpoint", member, **args)
    return stage


def due(s: Stages, n: int) -> Stage:
    """A warmup whose time is over, while nobody is ready."""
    stage = s.start(s.configured(n, warmup_time=1), s.members(), n)
    s.chain.pass_time(2)
    return stage


def finished(s: Stages, n: int, wallets: list[Keypair] | None = None) -> Stage:
    """A pool whose run is finished; funded; the first member has a claim, nobody was paid in full."""
    stage = s.start(s.configured(n, paid=True), s.members(wallets), n)
    run = stage.run
    run.play_epoch(stage.members)
    run.agree(stage.members)
    s.chain.mint_to(s.mint, s.issuer, run.vault, 7)
    run.claim(stage.members[0])
    s.chain.mint_to(s.mint, s.issuer, run.vault, 20 * RATE)
    return stage


def owing(s: Stages, n: int) -> Stage:
    """A pool whose run is finished and settled, and whose members are owed all but a little of what they earned."""
    stage = finished(s, n)
    for member in stage.members:
        stage.run.settle(member)
    return stage


def ended(s: Stages, n: int) -> Stage:
    """A pool that outlives its run: closed while members were owed, and funded once more since."""
    stage = owing(s, n)
    stage.run.act("close_pool")
    s.chain.mint_to(s.mint, s.issuer, stage.run.vault, RATE)
    return stage


def paid(s: Stages, n: int) -> Stage:
    """A pool whose run is finished and whose members have all they earned; more than that is in the vault."""
    stage = finished(s, n, s.paid_wallets)
    for member in stage.members:
        stage.run.claim(member)
    return stage


def closed(s: Stages, n: int) -> Stage:
    """A run by authorization: the first member is in, and what admitted it is revoked; the third may join."""
    run = s.configured(n, join_authority=s.join_authority.pubkey())
    stage = Stage(run, s.members())
    for member in stage.members:
        grant = Grant(s.chain, s.join_authority, member.wallet)
        if s.chain.data(grant.key) is None:
            grant.create()
        grant.set_active(True)
        member.authorization, member.weight = grant.key, 2
        stage.grants.append(grant)
    run.act("set_paused", paused=False)
    run.join(stage.members[0])
    stage.grants[0].set_active(False)
    return stage


def digests(member: Member) -> list[bytes]:
    return [hashlib.sha256(bytes([part])).digest() for part in range(2 - member.tier)]
