"""Every way in which the embedded chain answers differently on purpose, with the reason.

An entry names questions by a pattern and the places in the answer that differ by patterns of paths. The test
fails for a difference that no entry covers, and for an entry that covers none.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Difference:
    """Questions and places (`*` matches anything), and why they differ."""

    questions: tuple[str, ...]
    paths: tuple[str, ...]
    reason: str

    def covers(self, question: str, path: str) -> bool:
        return any(fnmatchcase(question, pattern) for pattern in self.questions) and any(
            fnmatchcase(path, pattern) for pattern in self.paths
        )


DIFFERENCES = (
    Difference(
        ("* sure", "* commitment 5", "getLeaderSchedule commitment first", "simulate of no commitment"),
        ("error", "result", "result.*"),
        "A commitment that does not exist is refused. A validator takes it for `finalized` without a word in "
        "most methods, and a misspelt `confirmed` then costs 13 seconds a step that nobody understands.",
    ),
    Difference(
        ("getVoteAccounts*",),
        ("result.current.each",),
        "One process is the chain: nobody votes and nobody has stake.",
    ),
    Difference(
        ("block *",),
        ("result.rewards.each",),
        "Fees are burnt: there is no leader that would be paid.",
    ),
    Difference(
        ("getClusterNodes",),
        ("result.each",),
        "There is no gossip, and transactions enter by sendTransaction only: the other ports do not exist.",
    ),
    Difference(
        ("http oversized",),
        ("json", "status"),
        "A body may have 1 MiB. A validator's 50 KiB is a setting there too, and too little for large batches.",
    ),
    Difference(
        ("sendTransaction without encoding", "simulateTransaction without encoding"),
        ("error", "result", "result.value.*"),
        "Every commitment is answered from the newest state, which is durable and never undone. So a blockhash "
        "is known at once where a validator that is asked for `finalized` does not know it for 32 slots.",
    ),
    Difference(
        ("simulate missing accounts*", "send missing accounts"),
        ("*logs", "error.message"),
        "LiteSVM's runtime is older than this validator and has another name for this error.",
    ),
    Difference(
        ("simulate newest extension",),
        ("result.value.*",),
        "LiteSVM brings an older Token-2022, without scaled amounts and pausing.",
    ),
    Difference(
        ("transaction metadata *", "transaction mint2022 *"),
        ("result.meta.computeUnitsConsumed", "result.meta.costUnits", "result.meta.logMessages"),
        "LiteSVM brings an older Token-2022, which costs more and logs otherwise.",
    ),
    Difference(
        ("transaction metadata jsonParsed", "transaction mint2022 jsonParsed"),
        ("result.transaction.message.instructions.each",),
        "Instructions of Token-2022's extensions are shown with their data; only wallets read their fields.",
    ),
    Difference(
        ("token-2022 program parsed",),
        ("result.value.data",),
        "LiteSVM's Token-2022 is a program that cannot be upgraded, a validator's can.",
    ),
    Difference(
        ("transaction table *",),
        ("result.meta.computeUnitsConsumed", "result.meta.costUnits", "result.meta.logMessages"),
        "The lookup table program is built into LiteSVM; the validator runs it as bytecode, which costs and "
        "logs more.",
    ),
)
