"""The `run` command of `psyche-localnet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from localnet.run.badnet import Bad, parse_apart, parse_bandwidth
from localnet.run.plan import RunPlan, parse_tiers
from psyche_chain.cli.options import endpoints
from psyche_chain.config import load_config
from psyche_train.cli.output import one_line

if TYPE_CHECKING:
    from localnet.run.summary import Summary


def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The run's configuration.")],
    clients: Annotated[int, typer.Option("--clients", help="Number of members.")] = 3,
    tiers: Annotated[
        str | None, typer.Option("--tiers", metavar="T,T,…", help="Tier of each member; all 0 if absent.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the run; runs/<run id> if absent.")
    ] = None,
    rpc: Annotated[
        str | None,
        typer.Option("--rpc", metavar="URL", help="A cluster with a faucet instead of the embedded chain."),
    ] = None,
    headless: Annotated[
        bool, typer.Option("--headless", help="Plain lines instead of the live table.")
    ] = False,
    kill_random: Annotated[
        int, typer.Option("--kill-random", min=0, help="Members to kill -9 at a time.")
    ] = 0,
    every: Annotated[float, typer.Option("--every", min=6.0, help="Seconds between kills.")] = 20.0,
    max_kills: Annotated[
        int | None, typer.Option("--max-kills", min=1, help="Stop killing after so many.")
    ] = None,
    latency: Annotated[
        float, typer.Option("--latency", metavar="MS", help="One way between two members.")
    ] = 0.0,
    jitter: Annotated[
        float, typer.Option("--jitter", metavar="MS", help="Up to so much more, at random.")
    ] = 0.0,
    loss: Annotated[
        float, typer.Option("--loss", metavar="PCT", help="Packets lost between two members.")
    ] = 0.0,
    bandwidth: Annotated[
        str | None,
        typer.Option("--bandwidth", metavar="MBPS", help="Of each member's line; 100/20 is down/up."),
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            "--partition", metavar="M,M,…", help="Cut these members off from the others for a while."
        ),
    ] = None,
    partition_at: Annotated[
        float, typer.Option("--partition-at", metavar="S", help="Seconds after the first round.")
    ] = 0.0,
    partition_for: Annotated[
        float, typer.Option("--partition-for", metavar="S", help="How long the partition lasts.")
    ] = 0.0,
    packets: Annotated[
        bool,
        typer.Option(
            "--packets",
            help="Lose real packets, in network namespaces (Linux, root); else a proxy models it.",
        ),
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", help="Of the kill schedule and of the network's faults.")
    ] = 0,
    exit_after_steps: Annotated[
        int | None, typer.Option("--exit-after-steps", min=1, help="Pause the run at this step and end.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "cpu",
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads per member.")] = 1,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1.0, help="Seconds after which the run is given up.")
    ] = 3600.0,
) -> None:
    """A whole run on this machine: chain, programs, members, training, checkpoints, pay, claims, summary.

    Exit status 1 when weights, money or pay do not add up.
    """
    if rpc is not None:
        endpoints([rpc])
    # Here, not at the top: the chain's own commands, `up` above all, must not load all of torch.
    from localnet.run.session import run_plan

    loaded = load_config(config)
    down_mbps, up_mbps = parse_bandwidth(bandwidth)
    bad = Bad(
        latency_ms=latency,
        jitter_ms=jitter,
        loss_pct=loss,
        down_mbps=down_mbps,
        up_mbps=up_mbps,
        apart=parse_apart(partition),
        cut_at_s=partition_at,
        cut_for_s=partition_for,
    )
    plan = RunPlan(
        config=loaded,
        config_path=config,
        tiers=parse_tiers(tiers, clients),
        out=out or Path("runs") / loaded.run_id,
        rpc=rpc,
        headless=headless,
        kill_random=kill_random,
        every_s=every,
        seed=seed,
        max_kills=max_kills,
        bad=bad,
        packets=packets,
        exit_after_steps=exit_after_steps,
        device=device,
        threads=threads,
        timeout_s=timeout,
    )
    summary = trio.run(run_plan, plan)
    show(summary, plan.out)
    if summary.problems:
        raise typer.Exit(1)


def show(summary: Summary, out: Path) -> None:
    """Print the summary for a person; the numbers are in ``summary.json``."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120  # a file has no width of its own
    table = Table(
        title=f"{summary.run}: {summary.steps} steps in {summary.epochs} epochs, {summary.wall_seconds:.0f} s"
    )
    for name in ("member", "slot", "tier", "first loss", "val loss", "rounds", "claimed", "weights"):
        table.add_column(name, justify="left" if name == "weights" else "right")
    for index, member in enumerate(summary.members):
        table.add_row(
            str(index),
            "" if member.slot is None else str(member.slot),
            str(member.tier),
            "" if member.first_loss is None else f"{member.first_loss:.3f}",
            "" if member.val_loss is None else f"{member.val_loss:.3f}",
            str(member.rounds_accepted),
            str(member.claimed),
            (member.weights_sha256 or "none")[:16],
        )
    console.print(table)
    size = summary.bytes_per_param_step
    chain = summary.chain
    console.print(
        f"{summary.parameters:,} parameters"
        + (f", {size:.5f} bytes per parameter and step" if size is not None else "")
        + f"; chain agreed on {chain.weights_sha256[:16]} at step {chain.checkpoint_step}; "
        f"funded {chain.funded}, paid {chain.paid}, left {chain.left_in_vault}"
    )
    console.print(f"{out / 'summary.json'}  {out / 'loss.png'}")
    for problem in summary.problems:
        console.print(f"[bold red]problem:[/bold red] {escape(one_line(problem))}")
    if not summary.problems:
        console.print(
            "[green]weights equal on all members and on the chain; every token accounted for[/green]"
        )
