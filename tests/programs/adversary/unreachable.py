"""What is accepted in states that no transaction can bring about: forgeries with the right owner and discriminator.

Only a program writes its accounts, only at their derived addresses (a `RunState`: where its key signed), and whole.
Forgeries are tried all the same: each is one mistake away from being reached.
"""

from tests.programs.adversary.equivalences import Reason

UNREACHABLE = (
    Reason(
        "A program's account elsewhere than at its address, where nothing else in the call names it.",
        (
            ("*", "run", "forged, a copy"),
            ("*", "spec", "forged, a copy"),
            ("*", "membership", "forged, a copy"),
            ("*", "authorization", "forged, a copy"),
            ("*", "run_state", "forged, a copy"),
        ),
    ),
    Reason(
        "Borsh reads the front of an account and cares for no more; texts at the end may be shorter than their room.",
        (
            ("*", "run", "*, grown"),
            ("*", "run", "*, truncated"),
            ("*", "spec", "*, grown"),
            ("*", "spec", "*, truncated"),
            ("*", "membership", "*, grown"),
            ("*", "membership", "*, truncated"),
            ("*", "authorization", "*, grown"),
            ("*", "pool", "spoilt, grown"),
        ),
    ),
    Reason(
        "An account that the instruction needs to be the right one, and does not read.",
        (
            ("write_spec", "run_state", "spoilt, *"),
            ("update_pool:WriteSpec", "run_state", "spoilt, *"),
            ("update_pool:SetMetadata", "run_state", "spoilt, *"),
            ("update_pool:SetAuthority", "run_state", "spoilt, *"),
            ("update_pool:SetAuthority", "run", "spoilt, *"),
            ("claim", "run", "spoilt, *"),
            ("claim:again", "run", "spoilt, *"),
        ),
    ),
    Reason(
        "A log whose run is closed, and an authorization that is.",
        (
            ("close_membership", "run_state", "spoilt, owner"),
            ("claim*", "run_state", "spoilt, owner"),
            ("close_pool*", "run_state", "spoilt, owner"),
            ("evict", "authorization", "spoilt, *"),
        ),
    ),
    Reason(
        "A membership and a claim that already exist are written anew; what was earned and paid is the program's own.",
        (
            ("join:again", "membership", "spoilt, zeroed"),
            ("claim:again", "claim", "spoilt, *"),
            ("claim:again", "claim.*", "names another"),
            ("join:again", "membership.*", "names another"),
        ),
    ),
    Reason(
        "A mint without an authority, or with another.",
        (
            ("*", "mint", "spoilt, discriminator", "one bit"),
            ("*", "mint.authority", "names another"),
            ("*", "mint.freeze authority", "names another"),
        ),
    ),
    Reason("The log names its run in events only.", (("*", "run_state.run", "names another"),)),
    Reason("Keys of slots that the instruction is not about.", (("*", "run_state.slot *", "names another"),)),
    Reason("The creator is only part of the run's address.", (("*", "run.creator", "names another"),)),
    Reason(
        "Keys that another instruction needs.",
        (
            ("*", "run.join_authority", "names another"),
            ("update_pool:SetAuthority", "run.authority", "names another"),
            ("join*", "run.authority", "names another"),
            ("evict", "run.authority", "names another"),
            ("claim*", "run.authority", "names another"),
            ("set_metadata", "run.run_state", "names another"),
            ("set_authority", "run.run_state", "names another"),
            ("update_pool:Set[MA]*", "run.run_state", "names another"),
            ("claim*", "run.run_state", "names another"),
            ("claim*", "pool.authority", "names another"),
            ("update_pool:*", "pool.mint", "names another"),
            ("update_pool:*", "pool.vault", "names another"),
            ("*", "membership.authorization", "names another", "a stranger"),
            ("*", "membership.hot_key", "names another"),
            ("update_contact", "membership.run_state", "names another"),
            ("update_contact", "membership.wallet", "names another"),
            ("settle*", "membership.wallet", "names another"),
            ("*", "authorization.grantee", "names another"),
            ("set_delegates", "authorization.grantor", "names another"),
            ("evict", "authorization.grantor", "names another"),
        ),
    ),
    Reason("The pool's address says which log is its own.", (("*", "pool.run_state", "names another"),)),
)
