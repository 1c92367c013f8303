"""Commands of a member: join, leave, and the rent of a membership."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import trio
import typer

from psyche_chain.admin import access, closed, manage
from psyche_chain.admin.cluster import on_our_programs
from psyche_chain.admin.session import Session, check_client_version
from psyche_chain.chain import accounts
from psyche_chain.chain.accounts import Run
from psyche_chain.chain.layout import MAX_TIER
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.state import Phase, RunState, SlotStatus
from psyche_chain.cli.narrator import Narrator
from psyche_chain.cli.options import (
    KeypairOpt,
    RpcOpt,
    RunArg,
    check_announce,
    check_listen,
    endpoints,
    wallet,
)
from psyche_chain.cli.sending import Result, Sending, sends
from psyche_chain.wallet import wallet_path
from psyche_train.cli import output
from psyche_train.cli.shell import add_commands
from psyche_train.evals.load import names_of
from psyche_train.evals.options import EvalOptions


class Precision(StrEnum):
    """Of the forward and backward pass."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add_commands(
        app,
        ("join", join, "join demo --tier 1 --state-dir ~/psyche/demo --rpc http://127.0.0.1:8899"),
        ("leave", leave, "leave demo"),
        ("close-membership", close_membership, "close-membership demo"),
    )


def join(
    run: RunArg,
    tier: Annotated[
        int,
        typer.Option(
            "--tier", min=0, max=MAX_TIER, help="0 holds the whole model, 1 half of its FFN, 2 a quarter."
        ),
    ] = 0,
    weight: Annotated[int, typer.Option("--weight", min=1, max=65535, help="Share of the work.")] = 1,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, mps, cuda or cuda:N,...")] = "auto",
    ranks: Annotated[
        int | None,
        typer.Option("--ranks", min=1, max=64, help="Processes that train together; else one per device."),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision", metavar="auto|fp32|bf16", help="Of forward and backward; auto is bf16 on CUDA."
        ),
    ] = Precision.AUTO,
    micro_batch_tokens: Annotated[
        int | None,
        typer.Option("--micro-batch-tokens", min=1, metavar="N", help="Tokens of one pass; bounds memory."),
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Run forward and backward through torch.compile.")
    ] = False,
    checkpoint_activations: Annotated[
        bool,
        typer.Option("--checkpoint-activations", help="Compute activations twice instead of keeping them."),
    ] = False,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            "--state-dir", metavar="DIR", help="Checkpoints, blobs and log; else under ~/.local/share/psyche."
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="MULTIADDR", help="Where peers connect to.")
    ] = "/ip4/127.0.0.1/tcp/0",
    announce: Annotated[
        list[str] | None,
        typer.Option(
            "--announce",
            metavar="MULTIADDR",
            help="Where others reach you, if not there: a forwarded port, a public name; may be repeated.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="The run's prepared data, if you have them; else peers are asked."
        ),
    ] = None,
    hot_key: Annotated[
        Path | None,
        typer.Option(
            "--hot-key", metavar="FILE", help="Key file that signs the duties instead of the wallet."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads for training.")] = None,
    linger: Annotated[
        float,
        typer.Option("--linger", min=0, metavar="SECONDS", help="Stay for others once the run is finished."),
    ] = 60.0,
    upload: Annotated[
        str | None,
        typer.Option(
            "--upload",
            metavar="TO",
            help="Upload agreed checkpoints: hub:ORG/NAME, s3://BUCKET/PATH, gs://..., any fsspec URL.",
        ),
    ] = None,
    checkpoint_from: Annotated[
        str | None,
        typer.Option(
            "--checkpoint-from",
            metavar="FROM",
            help="Where to get the agreed checkpoint if no member has it: hub:ORG/NAME, a URL or a directory.",
        ),
    ] = None,
    eval_every: Annotated[
        int,
        typer.Option(
            "--eval-every",
            min=0,
            metavar="STEPS",
            help="Evaluate the own weights again after so many steps, between the duties; 0: never, "
            "or every 100 where tasks or a prompt are named.",
        ),
    ] = 0,
    eval_tasks: Annotated[
        str,
        typer.Option(
            "--eval-tasks", metavar="TASK,..", help="Tasks of psyche-train eval, besides the validation loss."
        ),
    ] = "",
    eval_dir: Annotated[
        Path | None,
        typer.Option(
            "--eval-dir", metavar="DIR", help="Folder of TASK.jsonl files; else the Hugging Face Hub."
        ),
    ] = None,
    eval_limit: Annotated[int, typer.Option("--eval-limit", min=1, help="Questions of each task.")] = 100,
    eval_prompt: Annotated[
        str, typer.Option("--eval-prompt", metavar="TEXT", help="A text to continue in every evaluation.")
    ] = "",
    json_logs: Annotated[bool, typer.Option("--json-logs", help="One JSON object per log line.")] = False,
    rpc: RpcOpt = None,
    keypair: KeypairOpt = None,
) -> None:
    """Take part in a run until it is finished; Ctrl-C leaves in good order.

    The same command continues after a crash: weights, blobs and the log are in the state directory.
    """
    check_listen(listen)
    check_announce(announce or [])
    evals = None
    if eval_every or eval_tasks or eval_prompt:
        evals = EvalOptions(
            every=eval_every or 100,
            tasks=tuple(names_of(eval_tasks)),
            folder=eval_dir,
            limit=eval_limit,
            prompt=eval_prompt,
        )
    urls = endpoints(rpc)
    signer = wallet(keypair)

    async def find() -> tuple[Run, RunState]:
        async with RpcPool(urls) as pool, on_our_programs(pool):
            found = await accounts.resolve_run(pool, run)
            return found, await accounts.fetch_state(pool, found)

    found, state = trio.run(find)
    check_client_version(found)
    slot = state.slot_of(signer.pubkey())
    if state.phase is Phase.FINISHED and (slot is None or slot.status is SlotStatus.DEPARTED):
        # Nobody trains any more, and those who could hand over the weights may be gone.
        output.note(
            f"run {found.run_id} is finished at step {state.step}: there is nothing left to take part in"
        )
        return

    from psyche_chain.client import JoinOptions, run_client  # imports torch: only where it is needed

    status = run_client(
        JoinOptions(
            run=str(found.key),
            rpc=urls,
            keypair=wallet_path(keypair),
            tier=tier,
            weight=weight,
            device=device,
            ranks=ranks,
            precision=precision.value,
            micro_batch_tokens=micro_batch_tokens,
            compile=compile_,
            checkpoint_activations=checkpoint_activations,
            state_dir=state_dir or _default_state_dir(found, str(signer.pubkey())),
            listen=listen,
            announce=tuple(announce or ()),
            data=data,
            hot_key=hot_key,
            threads=threads,
            json_logs=json_logs,
            linger_s=linger,
            upload=upload,
            checkpoint_from=checkpoint_from,
            evals=evals,
            on_event=None if json_logs else Narrator(linger_s=linger),
        )
    )
    raise typer.Exit(status)


def _default_state_dir(run: Run, wallet_key: str) -> Path:
    """One folder per run and wallet."""
    base = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    return base / "psyche" / f"{run.run_id}-{str(run.run_state)[:8]}-{wallet_key[:8]}"


@sends
def leave(
    run: RunArg,
    *,
    sending: Sending,
) -> None:
    """Leave a run from the next round on; pay that was earned stays."""

    async def action(session: Session) -> Result:
        found = await accounts.resolve_run(session.rpc, run)
        slot = await manage.leave(session, found)
        return Result(f"left slot {slot} of {found.run_id}", {"run": str(found.key), "slot": slot})

    sending.run(action)


@sends
def close_membership(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Run id or key; of a closed run, the key of its RunState.")
    ],
    *,
    sending: Sending,
) -> None:
    """Take back the rent of your membership (and claim): after the run was closed, or left with nothing earned."""

    async def action(session: Session) -> Result:
        run_state = await closed.run_state_of(session.rpc, run, session.wallet)
        await access.close_membership(session, run_state)
        return Result(f"the membership of {session.wallet} is closed", {"run_state": str(run_state)})

    sending.run(action)
