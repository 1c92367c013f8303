"""What a campaign reached: instructions by phase by outcome, and what nothing reached though it could be."""

from collections import defaultdict

from tests.programs.fuzz.episode import Tally
from tests.programs.fuzz.log import PHASES
from tests.programs.fuzz.model import HANDLERS, IDLS

ALWAYS = tuple(PHASES)
HALTED = ("Uninitialized", "Finished", "Paused")
IN_EPOCH = ("Warmup", "RoundTrain", "RoundWitness", "Cooldown")
# Where an instruction can succeed at all.
SUCCEEDS = {
    "create_run": ("none",),
    "create_pool": ("none",),
    "write_spec": ("Uninitialized",),
    "seal_spec": ("Uninitialized",),
    "reset_spec": HALTED,
    "configure": HALTED,
    "set_paused": ("Waiting", "Warmup", "RoundTrain", "RoundWitness", "Cooldown", "Paused"),
    "set_round_rate": ALWAYS,
    "set_authority": ("-",),
    "set_metadata": ("-",),
    "close_run": HALTED,
    "close_pool": HALTED,
    "join": ("Waiting", "Warmup", "RoundTrain", "RoundWitness", "Cooldown", "Paused"),
    "update_contact": ("-",),
    "ready": ("Warmup", "RoundTrain", "RoundWitness"),
    "commit": ("RoundTrain",),
    "witness": ("RoundTrain", "RoundWitness"),
    "attest_checkpoint": ("Cooldown",),
    "record_checkpoint": ("Cooldown",),
    "leave": ALWAYS,
    "tick": ("Waiting", "Warmup", "RoundTrain", "RoundWitness", "Cooldown"),
    "evict": ALWAYS,
    "settle": ALWAYS,
    "claim": (*ALWAYS, "none"),
    "close_membership": (*ALWAYS, "none"),
}
# Errors that no transaction of this fuzzer can provoke, and why.
OUT_OF_REACH = {
    "WrongVersion": "only a newer program writes another version",
    "Misaligned": "the loader aligns accounts",
    "NotZeroed": "the account's bytes are checked before",
    "Overflow": "no counter reaches its end in an episode",
    "TickFromProgram": "needs a program that calls",
    "WrongSlotHashes": "left to the adversary's tests",
    "WrongInstructions": "left to the adversary's tests",
    "ScopeLength": "authorizations have names by their one scope here",
    "MintTransferFee": "mints are plain here",
    "MintTransferHook": "mints are plain here",
    "MintPermanentDelegate": "mints are plain here",
    "MintNonTransferable": "mints are plain here",
    "MintDefaultState": "mints are plain here",
    "MintCloseAuthority": "mints are plain here",
    "MintPausable": "mints are plain here",
    "MintExtension": "mints are plain here",
    "MintUnreadable": "mints are plain here",
    "RunStateUnreadable": "only a newer program writes another version",
}


def cells_to_reach() -> set[tuple[str, str]]:
    """(instruction, phase) in which each instruction can succeed."""
    found = set()
    for program, idl in IDLS.items():
        for name in idl.instructions:
            phases = SUCCEEDS.get(name, ("-",))
            if name == "update_pool":
                continue
            if name == "claim" and f"{program}.{name}" in HANDLERS:
                phases = tuple(p for p in phases)
            found |= {(f"{program}.{name}", phase) for phase in phases}
    for variant in ("Configure", "SetRoundRate", "SetPaused", "ResetSpec", "WriteSpec", "SealSpec"):
        snake = "".join("_" + ch.lower() if ch.isupper() else ch for ch in variant)[1:]
        found |= {(f"treasurer.update_pool.{variant}", phase) for phase in SUCCEEDS[snake]}
    every = ("SetMetadata", "SetAuthority")
    return found | {(f"treasurer.update_pool.{v}", phase) for v in every for phase in ALWAYS}


def missed(tally: Tally) -> list[tuple[str, str]]:
    """Cells in which an instruction could have succeeded and never did."""
    ok = {(ix, phase) for ix, phase, outcome in tally.cells if outcome == "ok"}
    return sorted(cells_to_reach() - ok)


def unseen_errors(tally: Tally) -> list[str]:
    """Errors of the programs that nothing provoked, those out of reach aside."""
    seen = {outcome for _, _, outcome in tally.cells}
    known = {name for idl in IDLS.values() for name in idl.errors.values()}
    return sorted(known - seen - set(OUT_OF_REACH))


def table(tally: Tally) -> str:
    """Instructions × phases × outcomes as a table of counts."""
    rows: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for (ix, phase, outcome), n in tally.cells.items():
        rows[ix][phase][outcome] = n
    lines = [
        "# Coverage: instruction, phase of its run before it, outcomes (`-`: an instruction without a run)",
        "",
    ]
    for ix in sorted(rows):
        lines.append(f"{ix}  (most units in a transaction of its own: {tally.most_units.get(ix, 0):,})")
        for phase in ("-", "none", *PHASES):
            outcomes = rows[ix].get(phase)
            if outcomes:
                counts = sorted(outcomes.items(), key=lambda pair: (pair[0] != "ok", -pair[1]))
                lines.append(f"    {phase:14}" + "  ".join(f"{name} {n:,}" for name, n in counts))
    lines += ["", "Never succeeded in a phase in which it can:"]
    lines += [f"    {ix} in {phase}" for ix, phase in missed(tally)] or ["    nothing"]
    lines += ["", "Errors never seen:", "    " + (", ".join(unseen_errors(tally)) or "none")]
    lines += ["", "Refused as it must, under another name than the model's first reason:"]
    ordered = sorted(tally.names.items(), key=lambda pair: -pair[1])
    lines += [f"    {ix}: {mine} expected, {theirs}: {n:,}" for (ix, mine, theirs), n in ordered] or [
        "    none"
    ]
    return "\n".join(lines) + "\n"


def summary(tally: Tally) -> str:
    """A few lines for the terminal."""
    ok = sum(n for (_, _, outcome), n in tally.cells.items() if outcome == "ok")
    every = sum(tally.cells.values())
    reach, lost = len(cells_to_reach()), missed(tally)
    text = f"{len(tally.cells)} cells (instruction x phase x outcome); {ok:,} of {every:,} instructions succeeded\n"
    text += f"{reach - len(lost)} of {reach} (instruction, phase) cells reached in which it can succeed"
    if lost:
        text += "; missing: " + ", ".join(f"{ix} in {phase}" for ix, phase in lost[:12])
        text += f" and {len(lost) - 12} more" if len(lost) > 12 else ""
    unseen = unseen_errors(tally)
    return text + (
        f"\nerrors never seen: {', '.join(unseen)}" if unseen else "\nevery error in reach was seen"
    )
