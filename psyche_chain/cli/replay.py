"""`replay`: audit a run by folding its log again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from psyche_chain.chain import accounts
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.state import RunState
from psyche_chain.cli import exit_codes
from psyche_chain.cli.options import JsonOpt, RpcOpt, RunArg, with_rpc
from psyche_chain.errors import ConfigError, NotFoundError, PsycheError
from psyche_train.cli import output
from psyche_train.cli.shell import add_commands

if TYPE_CHECKING:
    from psyche_chain.audit import Audit

SHORT = 16


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add_commands(app, ("replay", replay, "replay demo --state-dir ~/psyche/demo --blobs /archive/blobs"))


def replay(
    run: RunArg,
    state_dir: Annotated[
        list[Path] | None,
        typer.Option("--state-dir", metavar="DIR", help="A member's state directory; any number of them."),
    ] = None,
    blobs: Annotated[
        list[Path] | None,
        typer.Option("--blobs", metavar="DIR", help="A folder of blobs named by their ids; any number."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="CHECKPOINT",
            help="Begin here (a directory, hub: or URL), not at the first weights.",
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, mps or cuda.")] = "cpu",
    json: JsonOpt = False,
    rpc: RpcOpt = None,
) -> None:
    """Fold a run's log again and compare every hash that the chain shows.

    Exit status: 0 all is as the chain says, 1 something differs, 3 weights to begin with cannot be used,
    4 records or blobs are missing or damaged, so that not all could be compared. `join --archive` keeps all blobs.
    """
    if not state_dir:
        raise PsycheError(
            "replay needs the records of the run",
            "give the state directory of a member with --state-dir; of several for their blobs",
            exit_codes.USAGE,
        )
    for folder in (*state_dir, *(blobs or [])):
        if not folder.is_dir():
            raise NotFoundError(
                f"{folder} is not a directory", "name a member's --state-dir, or a folder of blobs"
            )

    async def read(pool: RpcPool) -> tuple[accounts.Run, RunState, bytes]:
        found = await accounts.resolve_run(pool, run)
        state = await accounts.fetch_state(pool, found)
        spec = await accounts.fetch_spec(pool, found)
        if spec is None or not spec.sealed or hashlib.sha256(spec.data).digest() != state.spec_hash:
            raise NotFoundError(f"run {found.run_id} has no sealed specification", "nothing was trained yet")
        return found, state, spec.data

    found, state, raw = with_rpc(rpc, read)
    result = _audit(found, state, raw, state_dir, blobs or [], start, device)
    if json:
        output.data_json(_tables(found, result))
    else:
        output.data("\n".join(_lines(found, result)))
    if result.differs:
        wrong = next(row for row in result.rows if not row.equal)
        raise PsycheError(
            f"the audit found a difference: {wrong.what} at step {wrong.step} has {wrong.found.hex()}, "
            f"expected {wrong.expected.hex()}",
            "a checkpoint in a folder: do not use it; the chain's weights: tell the run's operator",
            exit_codes.ERROR,
        )
    if result.gaps:
        raise NotFoundError(
            f"the audit is not complete: {result.gaps[0]}",
            "name more folders with --state-dir or --blobs, or begin later with --from CHECKPOINT",
        )


def _audit(
    run: accounts.Run,
    state: RunState,
    raw_spec: bytes,
    state_dirs: list[Path],
    blobs: list[Path],
    start: str | None,
    device: str,
) -> Audit:
    from rich.console import Console
    from rich.progress import Progress

    from psyche_chain.audit import Sources, audit
    from psyche_chain.client.view import ChainView
    from psyche_train.checkpoints.remote import fetch
    from psyche_train.devices import choose_device
    from psyche_train.replay import Replay
    from psyche_train.spec import TrainSpec

    try:
        replayed = Replay(TrainSpec.from_bytes(raw_spec), bytes(run.run_state), choose_device(device))
        if start is None:
            where = replayed.first()
        else:
            path = fetch(start)
            replayed.load(path)
            where = str(path)
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"the weights to begin with cannot be used: {error}",
            "name a checkpoint of tier 0 of this run with --from",
        ) from error
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("folding", total=None)
        return audit(
            replayed,
            ChainView.of(state),
            Sources.of(state_dirs, blobs),
            where,
            lambda done, total: bar.update(task, completed=done, total=total),
        )


def _tables(run: accounts.Run, found: Audit) -> dict[str, Any]:
    return {
        "run": str(run.key),
        "run_id": run.run_id,
        "verdict": found.verdict,
        "start": found.start,
        "rounds": found.rounds,
        "updates": found.updates,
        "undecodable_updates": found.useless,
        "comparisons": [
            {
                "what": row.what,
                "step": row.step,
                "expected": row.expected.hex(),
                "found": row.found.hex(),
                "equal": row.equal,
            }
            for row in found.rows
        ],
        "missing": found.gaps,
        "notes": found.notes,
    }


def _lines(run: accounts.Run, found: Audit) -> list[str]:
    facts = {
        "run": f"{run.run_id}  {run.key}",
        "from": found.start,
        "rounds": f"{found.rounds} folded, {found.updates} updates",
        "undecodable": f"{found.useless} accepted updates, which count for nobody" if found.useless else None,
        "verdict": found.verdict,
    }
    lines = output.pairs({key: value for key, value in facts.items() if value is not None})
    rows = [
        [r.step, "equal" if r.equal else "DIFFERS", r.expected.hex()[:SHORT], r.found.hex()[:SHORT], r.what]
        for r in found.rows
    ]
    if rows:
        lines += ["", *output.table(("step", "result", "expected", "found", "of what"), rows)]
    lines += ["", *(f"missing: {gap}" for gap in found.gaps)] if found.gaps else []
    return lines + [f"note: {note}" for note in found.notes]
