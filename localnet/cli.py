"""`psyche-localnet`: the embedded chain from the command line.

Commands stay thin: each reads its options, calls a library and shows what came back. Errors are rendered in
`main` only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from solders.keypair import Keypair

from localnet import deploy as deployment
from localnet.chain import __main__ as chain
from localnet.chain.server import ChainConfig, StartError
from localnet.deploy import command as checks
from localnet.run import command as launcher
from localnet.simulator import command as simulator
from psyche_chain.cli import exit_codes
from psyche_chain.cli.options import endpoints
from psyche_train.cli.shell import by_type, run_app

DEFAULT_RPC = "http://127.0.0.1:8899"

app = typer.Typer(
    name="psyche-localnet",
    help="A Solana chain on this machine, and whole training runs on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StateDir = Annotated[
    Path | None, typer.Option("--state-dir", help="Where the chain's state is kept.", show_default=False)
]


@app.command()
def up(
    port: Annotated[
        int, typer.Option(min=1, max=65_534, help="RPC port; the websocket takes the next one.")
    ] = 8899,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    state_dir: StateDir = None,
    reset: Annotated[bool, typer.Option("--reset", help="Start a new chain.")] = False,
    slot_ms: Annotated[int, typer.Option(help="Length of a slot in milliseconds.")] = 400,
) -> None:
    """Start the chain and serve it until it is interrupted.

    Example: psyche-localnet up --port 8899 --reset
    """
    config = ChainConfig(
        state_dir=state_dir or chain.default_state_dir(),
        host=host,
        port=port,
        reset=reset,
        slot_ms=slot_ms,
    )
    raise typer.Exit(chain.run(config))


@app.command()
def deploy(
    rpc: Annotated[str, typer.Option(help="The chain's RPC.")] = DEFAULT_RPC,
    payer: Annotated[
        Path | None, typer.Option(help="Keypair that pays and may upgrade; made where it is not named.")
    ] = None,
    programs: Annotated[
        Path, typer.Option(help="Folder of the built programs.", show_default=False)
    ] = deployment.DEFAULT_PROGRAMS,
    keys: Annotated[
        Path, typer.Option(help="Folder of the programs' keypairs.", show_default=False)
    ] = deployment.DEFAULT_KEYS,
    state_dir: StateDir = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Change nothing: compare what the chain runs with the built files."),
    ] = False,
    close_buffers: Annotated[
        bool, typer.Option("--close-buffers", help="Only take back what cut-off deployments have left.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Deploy the three programs; run again after an interruption, or to upgrade changed ones.

    Example: psyche-localnet deploy --rpc http://127.0.0.1:8899
    """
    endpoints([rpc])
    if verify:
        raise typer.Exit(checks.show_verified(rpc, programs, keys, as_json=as_json))
    if close_buffers:
        checks.show_closed(rpc, _payer(payer, state_dir or chain.default_state_dir()), as_json=as_json)
        return
    found = deployment.find_programs(programs, keys)
    signer = _payer(payer, state_dir or chain.default_state_dir())
    client = deployment.Rpc(rpc)
    try:
        done = _deploy_with_progress(client, signer, found)
    finally:
        client.close()
    result = {program.name: {"id": str(program.id), "result": done[program.name].value} for program in found}
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    for name, entry in result.items():
        typer.echo(f"{name:12} {entry['id']}  {entry['result']}")


app.command(
    "run",
    epilog="Example: psyche-localnet run config/demo.toml --clients 3 --tiers 0,1,1 --kill-random 1 --every 20",
)(launcher.run)

app.command(epilog="Example: psyche-localnet simulate --schedules 1000 --workers 2")(simulator.simulate)


def _payer(path: Path | None, state_dir: Path) -> Keypair:
    """The named key, or the chain's own deployer key, made at its first use."""
    if path is not None:
        return deployment.load_keypair(path)
    own = state_dir / "deployer.json"
    if not own.exists():
        state_dir.mkdir(parents=True, exist_ok=True)
        temporary = own.with_suffix(f".{os.getpid()}")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(list(bytes(Keypair()))))
        temporary.replace(own)
    return deployment.load_keypair(own)


def _deploy_with_progress(
    client: deployment.Rpc, payer: Keypair, programs: list[deployment.Program]
) -> dict[str, deployment.Deployment]:
    """A bar for each program on a terminal, nothing elsewhere: the result tells all."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:12}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {program.name: bars.add_task(program.name, total=len(program.elf)) for program in programs}
        return deployment.deploy_all(
            client,
            payer,
            programs,
            lambda program, written, size: bars.update(tasks[program.name], completed=written),
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    known = {
        deployment.UnreachableError: exit_codes.CHAIN,
        deployment.KeyFileError: exit_codes.CONFIG,
        deployment.DeployError: exit_codes.ERROR,
        StartError: exit_codes.ERROR,
    }
    return run_app(app, argv, by_type(known))


if __name__ == "__main__":
    sys.exit(main())
