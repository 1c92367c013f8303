"""Refusals that are not as they should be, each for a reason; an entry that matches nothing fails the test."""

from tests.programs.adversary.equivalences import Reason

FAULTS: tuple[Reason, ...] = (
    Reason(
        "Borsh allocates what a text's length says, up to 1 MiB, before it looks whether an account holds as much. No "
        "program writes such a length.",
        (("*", "run", "*, ones"), ("*", "membership", "*, ones")),
    ),
    Reason(
        "A vault that went over to the other token program, which cannot be: the runtime keeps it from changing.",
        (("*", "vault", "spoilt, owner", "the token-2022 program"),),
    ),
)
