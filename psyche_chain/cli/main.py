"""Entry point of `psyche-chain`: puts the commands together and shows errors."""

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from psyche_chain import __version__
from psyche_chain.cli import access, exit_codes, look, member, output, pay, runs, wallets
from psyche_chain.errors import PsycheError

app = typer.Typer(
    name="psyche-chain",
    help="Create, join and steer training runs on Solana. Add --debug anywhere for details and tracebacks.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 3 bad file, 4 not found, 5 no funds, "
    "6 chain unreachable, 7 refused by a program, 10 client too old.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(shown: bool) -> None:
    if shown:
        output.data(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for module in (runs, member, look, pay, access):
    module.register(app)
app.add_typer(wallets.app, name="wallet")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit status. Tracebacks are shown with `--debug` only."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app(args=args, standalone_mode=True)
    except SystemExit as exc:
        return (
            exc.code if isinstance(exc.code, int) else exit_codes.OK if exc.code is None else exit_codes.ERROR
        )
    except PsycheError as exc:
        return _fail(exc, exc, debug)
    except BaseExceptionGroup as group:
        found = _first(group)
        if isinstance(found, PsycheError):
            return _fail(found, group, debug)
        if isinstance(found, KeyboardInterrupt):
            return 130
        return _fail(_bug(found), group, debug)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return exit_codes.OK
    except Exception as exc:  # the last line of defence: a bug is told in a sentence, too
        return _fail(_bug(exc), exc, debug)
    return exit_codes.OK


def _first(exc: BaseException) -> BaseException:
    """The error to show of a group: a `PsycheError` before anything else."""
    if not isinstance(exc, BaseExceptionGroup):
        return exc
    leaves = [_first(e) for e in exc.exceptions]
    return next((e for e in leaves if isinstance(e, PsycheError)), leaves[0])


def _bug(exc: BaseException) -> PsycheError:
    text = str(exc).splitlines()[0] if str(exc) else ""
    return PsycheError(
        f"unexpected {type(exc).__name__}" + (f": {text}" if text else ""),
        "run the command again with --debug and report what it prints",
    )


def _fail(shown: PsycheError, cause: BaseException, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(cause)
    output.error(shown)
    return shown.exit_code
