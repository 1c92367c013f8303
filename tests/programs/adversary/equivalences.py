"""What may be accepted though something was changed, and why; everything else must be refused.

An entry is a reason with patterns of scene, target, kind and detail (as `fnmatch` reads them). Each pattern must match
something that was accepted: a stale one fails the test, so that the list stays as short as the programs are strict.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from tests.programs.adversary.mutation import Mutation

Pattern = tuple[str, ...]


@dataclass(frozen=True)
class Reason:
    """Why, and for which mutations: (scene, target, kind[, detail])."""

    why: str
    patterns: tuple[Pattern, ...]


def matching(reasons: tuple[Reason, ...], mutation: Mutation) -> list[Pattern]:
    """All patterns that cover the mutation."""
    name = (mutation.scene, mutation.target, mutation.kind, mutation.detail)
    return [
        pattern
        for reason in reasons
        for pattern in reason.patterns
        if all(fnmatchcase(part, wanted) for part, wanted in zip(name, pattern, strict=False))
    ]


ACCEPTED = (
    Reason(
        "The programs, like every Anchor program, read as much data and as many accounts as they need.",
        (("*", "data", "goes on"), ("*", "accounts", "one more")),
    ),
    Reason(
        "Another instruction of the same signer for the same accounts, which these data happen to encode too.",
        (
            ("*", "discriminator", "of another", "leave"),
            ("*", "discriminator", "of another", "ready"),
            ("*", "discriminator", "of another", "set_*"),
        ),
    ),
    Reason(
        "Whoever signs may pay, out of an account that the system program may debit.",
        (("*", "payer", "*, signing"),),
    ),
    Reason(
        "The authority, or the grantor, sends the rent where it likes; only not into what closes.",
        (("close_run", "recipient", "exchanged"), ("close", "recipient", "exchanged")),
    ),
    Reason(
        "What no member is owed goes to any account of the pool's token.",
        (
            ("close_pool*", "authority_token", "exchanged"),
            ("close_pool*", "authority_token", "forged, a copy"),
            ("close_pool*", "authority_token.*", "names another"),
        ),
    ),
    Reason(
        "Anybody may tick any run that has something due.",
        (("tick", "run_state", "exchanged", "due2.run_state"),),
    ),
    Reason(
        "Anybody may settle any member of a run.",
        (
            ("settle", "membership", "exchanged", "finished1.member[02].membership"),
            ("settle:departed", "membership", "exchanged", "departed1.member0.membership"),
        ),
    ),
    Reason(
        "A member's own wallet signs what its hot key signs.",
        (
            ("update_contact", "signer", "exchanged, signing", "waiting1.member0.wallet"),
            ("ready", "signer", "exchanged, signing", "waiting1.member2.wallet"),
            ("leave", "signer", "exchanged, signing", "waiting1.member2.wallet"),
            ("commit", "signer", "exchanged, signing", "waiting1.member2.wallet"),
            ("witness", "signer", "exchanged, signing", "waiting1.member2.wallet"),
            ("attest_checkpoint", "signer", "exchanged, signing", "waiting1.member1.wallet"),
            ("record_checkpoint", "signer", "exchanged, signing", "waiting1.member0.wallet"),
        ),
    ),
    Reason(
        "A run may be created with any empty log of a valid size whose key signs.",
        (
            ("create_run", "run_state", "exchanged, signing", "create_*"),
            ("create_run", "run_state", "forged, a copy"),
            ("create_*", "run_state", "*, zeroed"),
            ("create_pool", "pool+vault+run_state", "of the twin"),
        ),
    ),
    Reason(
        "Lamports at an address do not keep a program from creating its account there: nobody can squat one.",
        (
            ("*", "run", "taken before", "*lamports of somebody"),
            ("*", "spec", "taken before", "*lamports of somebody"),
            ("*", "pool", "taken before", "*lamports of somebody"),
            ("*", "vault", "taken before", "*lamports of somebody"),
            ("*", "wallet_token", "taken before", "*lamports of somebody"),
            ("*", "claim", "taken before", "*lamports of somebody"),
            ("*", "membership", "taken before", "*lamports of somebody"),
            ("*", "authorization", "taken before", "*lamports of somebody"),
        ),
    ),
    Reason(
        "Whatever somebody puts where a closed run was, what its members earned is paid, and nothing else.",
        (
            ("claim:closed", "run", "taken before"),
            ("claim:closed", "run_state", "taken before"),
            ("close_pool:again", "run", "taken before"),
            ("close_pool:again", "run_state", "taken before"),
        ),
    ),
    Reason("Who signs for itself alone needs no account of any kind.", (("*", "signer", "taken before"),)),
    Reason(
        "In an open run no authorization is read.",
        (("join", "authorization", "exchanged"), ("join:again", "authorization", "exchanged")),
    ),
    Reason(
        "The grantee has another authorization, and gives delegates to that one.",
        (("set_delegates", "authorization", "exchanged", "set_active2.authorization"),),
    ),
    Reason(
        "The whole of the twin's call, which is as valid, but for accounts that any other may replace.",
        (
            ("update_pool:*", "authority+pool+run+run_state", "of the twin"),
            ("close_run", "authority+run+run_state+spec", "of the twin"),
            ("close_pool*", "authority+pool+run+run_state+spec+vault", "of the twin"),
            ("close", "grantor+authorization", "of the twin"),
        ),
    ),
    Reason(
        "What does not touch the specification does not look at it; a pool whose run is closed has none.",
        (
            ("update_pool:Configure", "spec*", "*"),
            ("update_pool:SetRoundRate", "spec*", "*"),
            ("update_pool:SetPaused", "spec*", "*"),
            ("update_pool:SetMetadata", "spec*", "*"),
            ("update_pool:SetAuthority", "spec*", "*"),
            ("close_pool:again", "spec*", "*"),
            ("close_pool:again", "authority+pool+run+run_state+vault*", "of the twin"),
        ),
    ),
    Reason(
        "A pool's run is created with the pool as its authority, whatever is asked for.",
        (("create_pool", "args.authority", "other value"),),
    ),
    Reason(
        "The authority's to choose, within limits.",
        (
            ("*", "*config.*", "other value"),
            ("*", "*rate", "other value"),
            ("*", "*spec_len", "other value"),
            ("*", "*spec_sha256", "other value"),
            ("*", "*bytes", "other value"),
            ("*", "*name", "other value"),
            ("*", "*description", "other value"),
            ("*", "*min_client_version", "other value"),
            ("*", "*join_authority", "other value"),
            ("create_run", "args.authority", "other value"),
            ("set_authority", "authority", "other value"),
            ("update_pool:SetAuthority", "action.SetAuthority.authority", "other value"),
            ("create_*", "args.run_id", "other value, moved"),
        ),
    ),
    Reason(
        "The grantor's or the grantee's to choose.",
        (
            ("set_active", "active", "other value"),
            ("set_delegates", "add", "other value"),
            ("set_delegates", "clear", "other value"),
            ("*", "max_weight", "other value"),
            ("*", "min_tier", "other value"),
            ("create", "grantee", "other value, moved"),
            ("create", "scope", "other value, moved"),
        ),
    ),
    Reason(
        "The member's to say, for itself.",
        (
            ("join*", "args.hot_key", "other value"),
            ("join*", "args.p2p_key", "other value"),
            ("join*", "args.tier", "other value"),
            ("join:authorized", "args.weight", "other value"),
            ("*", "*contact", "other value"),
            ("commit", "hash", "other value"),
            ("witness", "bitmap", "other value", "all 0"),
            ("attest_checkpoint", "digests", "other value", "1 different"),
            ("record_checkpoint", "uri", "other value"),
        ),
    ),
)
