"""Refusals that are not as they should be, each for a reason; an entry that matches nothing fails the test."""

from tests.programs.adversary.equivalences import Reason

FAULTS: tuple[Reason, ...] = (
    Reason(
        "Borsh allocates what a text's length says, up to 1 MiB, before it looks whether the data hold as much: a "
        "false length ends the program for want of memory, before any of its own code runs. Nothing is changed.",
        (
            ("*", "*run_id", "invalid", "length *"),
            ("*", "*name", "invalid", "length *"),
            ("*", "*description", "invalid", "length *"),
            ("*", "*min_client_version", "invalid", "length *"),
            ("*", "*contact", "invalid", "length *"),
            ("*", "*bytes", "invalid", "length *"),
            ("*", "scope", "invalid", "length *"),
            ("*", "uri", "invalid", "length *"),
            ("*", "discriminator", "of another"),
        ),
    ),
    Reason(
        "The same while an account is read. No program writes such a length.",
        (("*", "run", "*, ones"), ("*", "membership", "*, ones")),
    ),
    Reason(
        "A vault that went over to the other token program, which cannot be: the runtime keeps it from changing.",
        (("*", "vault", "spoilt, owner", "the token-2022 program"),),
    ),
)
