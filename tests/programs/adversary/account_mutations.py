"""Accounts that are missing, exchanged, doubled or without their rights."""

from collections import defaultdict
from itertools import combinations

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey
from solders.token import ID as TOKEN

from tests.programs.adversary.call import Call
from tests.programs.adversary.mutation import Mutation, Mutations, can_sign, replaced
from tests.programs.adversary.scenes import Scene
from tests.programs.adversary.world import PROGRAMS, SYSVARS, World

MAX_MIXED = 9
"""Positions in which two calls may differ before their mixtures are only those of one and two positions."""


class AccountMutations:
    """All of them for one scene.

    Args:
        per_class: how many accounts of each kind (owner and discriminator) are tried in each position, besides those
            of the call and its twin; 0 tries every account of the world.
    """

    def __init__(self, world: World, scene: Scene, *, per_class: int) -> None:
        self.world, self.call, self.twin = world, scene.call, scene.twin
        self.others = [*relatives(world, scene.call), *some_of_each_class(world, per_class)]

    def __iter__(self) -> Mutations:
        yield from self.shortened()
        yield from self.without_rights()
        yield from self.exchanged()
        yield from self.swapped()
        yield from self.mixed()

    def shortened(self) -> Mutations:
        """Lists that end early, lists that lack one in the middle, and one that is too long."""
        call, names = self.call, [name for name, _ in self.call.accounts]
        for n, name in enumerate(names):
            yield self._mutation(name, "cut off", "and all after it", call.metas[:n])
            if n < len(names) - 1:
                yield self._mutation(
                    name, "left out", "the rest moves up", call.metas[:n] + call.metas[n + 1 :]
                )
        stranger = AccountMeta(next(iter(self.world.signers)), False, True)
        yield self._mutation("accounts", "one more", "a writable stranger", [*call.metas, stranger])

    def without_rights(self) -> Mutations:
        """Not signing where a signature is wanted, read-only where the account is written."""
        for n, (name, meta) in enumerate(self.call.accounts):
            elsewhere = [m for i, m in enumerate(self.call.metas) if i != n and m.pubkey == meta.pubkey]
            if meta.is_signer and not any(m.is_signer for m in elsewhere):
                metas = self.call.metas
                metas[n] = AccountMeta(meta.pubkey, False, meta.is_writable)
                yield self._mutation(name, "not signing", "the right key", metas)
            if meta.is_writable and not any(m.is_writable for m in elsewhere):
                metas = self.call.metas
                metas[n] = AccountMeta(meta.pubkey, meta.is_signer, False)
                yield self._mutation(name, "read-only", "the right key", metas)

    def exchanged(self) -> Mutations:
        """Another account in one position: of this call, of its twin, of each class, a program, a sysvar, nothing."""
        for n, (name, meta) in enumerate(self.call.accounts):
            own = {m.pubkey for m in self.call.metas}
            twins = {m.pubkey for m in self.twin.metas}
            for key in dict.fromkeys([*own, *twins, *self.others]):
                if key == meta.pubkey:
                    continue
                kind = "doubled" if key in own else "exchanged"
                detail = self.world.names.get(key, str(key))
                if meta.is_signer and can_sign(self.world, self.call, key):
                    yield self._at(n, name, f"{kind}, signing", detail, key)
                if meta.is_signer and not any(m.is_signer for m in self.call.metas if m.pubkey == key):
                    yield self._at(n, name, f"{kind}, not signing", detail, key, signer=False)
                if not meta.is_signer:
                    yield self._at(n, name, kind, detail, key)

    def swapped(self) -> Mutations:
        """Two accounts in each other's place, each with the rights of its new place as far as its key is held."""
        for a, b in combinations(range(len(self.call.accounts)), 2):
            (name, first), (other, second) = self.call.accounts[a], self.call.accounts[b]
            if first.pubkey == second.pubkey:
                continue
            metas = self.call.metas
            for at, place, key in ((a, first, second.pubkey), (b, second, first.pubkey)):
                signs = place.is_signer and can_sign(self.world, self.call, key)
                metas[at] = AccountMeta(key, signs, place.is_writable)
            yield self._mutation(f"{name}+{other}", "swapped", "", metas)

    def mixed(self) -> Mutations:
        """Every mixture of the call and its twin, each of which is valid; all the keys of both may sign."""
        twins = self.twin.metas
        differing = [i for i, m in enumerate(self.call.metas) if m.pubkey != twins[i].pubkey]
        sizes = range(2, len(differing)) if len(differing) <= MAX_MIXED else (2,)
        for size in sizes:
            for chosen in combinations(differing, size):
                metas = self.call.metas
                for i in chosen:
                    metas[i] = twins[i]
                names = "+".join(self.call.accounts[i][0] for i in chosen)
                yield self._mutation(names, "of the twin", "with the rest of this call", metas)

    def _mutation(self, target: str, kind: str, detail: str, metas: list[AccountMeta]) -> Mutation:
        return Mutation(self.call.scene, target, kind, detail, self.call.instruction(metas))

    def _at(
        self, n: int, name: str, kind: str, detail: str, key: Pubkey, signer: bool | None = None
    ) -> Mutation:
        return Mutation(self.call.scene, name, kind, detail, replaced(self.call, n, key, signer=signer))


def relatives(world: World, call: Call) -> list[Pubkey]:
    """Everything of the same run and its members, and every wallet that is a member of anything."""
    families = {world.names[m.pubkey].split(".")[0] for m in call.metas if m.pubkey in world.names}
    return [
        key for key, name in world.names.items() if name.split(".")[0] in families or name.endswith(".wallet")
    ]


def some_of_each_class(world: World, per_class: int) -> list[Pubkey]:
    """Up to `per_class` keys of each owner and discriminator, the last ones made first; all programs and sysvars."""
    classes: dict[object, list[Pubkey]] = defaultdict(list)
    special = {*PROGRAMS.values(), *SYSVARS.values()}
    for key, account in world.state.items():
        if key in special:
            continue
        kind: object = None
        if account is not None:
            by_size = account.owner == TOKEN
            kind = (account.owner, len(account.data) if by_size else bytes(account.data[:8]))
        classes[kind, key in world.signers].append(key)
    chosen = [key for keys in classes.values() for key in keys[-per_class:]]
    return [*chosen, *special]


def account_mutations(world: World, scene: Scene, *, per_class: int) -> Mutations:
    return iter(AccountMutations(world, scene, per_class=per_class))
