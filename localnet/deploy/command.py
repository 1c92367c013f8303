"""`psyche-localnet deploy --verify` and `--close-buffers`: what they print."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from solders.keypair import Keypair

from localnet.deploy.check import Match, close_buffers, verify
from localnet.deploy.programs import find_programs
from localnet.deploy.rpc import Rpc
from psyche_chain.cli import exit_codes


def show_verified(url: str, programs: Path, keys: Path, *, as_json: bool) -> int:
    """Compare and print; the exit status: 0 where all programs are equal, else 1."""
    expected = find_programs(programs, keys)
    rpc = Rpc(url)
    try:
        found = verify(rpc, expected)
    finally:
        rpc.close()
    rows = {}
    for program in expected:
        one = found[program.name]
        authority = None if one.authority is None else str(one.authority)
        rows[program.name] = {
            "id": str(program.id),
            "result": one.match.value,
            "slot": one.slot,
            "authority": authority,
        }
        if not as_json:
            since = "" if one.slot is None else f"  slot {one.slot}, authority {authority or 'nobody'}"
            typer.echo(f"{program.name:12} {program.id}  {one.match.value}{since}")
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    equal = all(one.match is Match.EQUAL for one in found.values())
    return exit_codes.OK if equal else exit_codes.ERROR


def show_closed(url: str, authority: Keypair, *, as_json: bool) -> None:
    """Close the authority's buffers and print them."""
    rpc = Rpc(url)
    try:
        closed = close_buffers(rpc, authority)
    finally:
        rpc.close()
    if as_json:
        typer.echo(json.dumps({str(key): lamports for key, lamports in closed.items()}, indent=2))
        return
    for key, lamports in closed.items():
        typer.echo(f"{key}  closed, {lamports / 1e9:.9f} SOL back")
    if not closed:
        typer.echo(f"{authority.pubkey()} has left no buffers")
