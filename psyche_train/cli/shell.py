"""Run a Typer application the way all commands of the project run: errors as sentences, one exit status.

The one place that turns exceptions into words; a traceback is shown with ``--debug`` only.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated

import typer

from psyche_train.cli import exit_codes, output
from psyche_train.errors import PsycheError


class _PlainLogs(logging.Formatter):
    """Peers and endpoints choose some of what is logged: it stays in its line and steers no terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return output.one_line(super().formatMessage(record))


Translate = Callable[[BaseException], PsycheError | None]
"""Turns an error of a library into one for the user; None where it is a bug. Asked only when something failed."""


def by_type(known: Mapping[type[Exception], int]) -> Translate:
    """Show errors of these types like a `PsycheError`: their text is a sentence; with their exit status."""

    def translate(exc: BaseException) -> PsycheError | None:
        statuses = (status for kind, status in known.items() if isinstance(exc, kind))
        status = next(statuses, None)
        return None if status is None else PsycheError(str(exc), exit_code=status)

    return translate


@cache
def _command(app: typer.Typer) -> Callable[..., object]:
    """The application, put together once for a process."""
    return typer.main.get_command(app)


def run_app(app: typer.Typer, argv: Sequence[str] | None = None, translate: Translate | None = None) -> int:
    """Run one command line; return its exit status. Errors go to stderr.

    Args:
        app: the application.
        argv: the words after the program's name; None: the process's own.
        translate: for errors that are no `PsycheError`.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainLogs("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler])
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        _command(app)(args=args, standalone_mode=True)
    except SystemExit as exc:
        return (
            exc.code if isinstance(exc.code, int) else exit_codes.OK if exc.code is None else exit_codes.ERROR
        )
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except output.ReaderGone:
        return exit_codes.OK
    except BaseExceptionGroup as group:
        found = first_error(group)
        if isinstance(found, output.ReaderGone):
            return exit_codes.OK
        return (
            exit_codes.INTERRUPTED
            if isinstance(found, KeyboardInterrupt)
            else _fail(found, group, debug, translate)
        )
    except Exception as exc:  # the last line of defence: a bug is told in a sentence, too
        return _fail(exc, exc, debug, translate)
    return exit_codes.OK


def new_app(name: str, version: str, *, help: str, epilog: str) -> typer.Typer:
    """Return an empty application in the project's manner: ``-h``, ``--version``, no tracebacks of Typer's own."""
    app = typer.Typer(
        name=name,
        help=f"{help} Add --debug anywhere for details and tracebacks.",
        epilog=epilog,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show_version(shown: bool) -> None:
        if shown:
            output.data(version)
            raise typer.Exit

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        pass

    return app


def add_commands(app: typer.Typer, *commands: tuple[str, Callable[..., None], str]) -> None:
    """Add commands to a named application: the name, the function, and an example without the application's name."""
    for name, function, example in commands:
        app.command(name, epilog=f"Example: {app.info.name} {example}")(function)


def first_error(exc: BaseException) -> BaseException:
    """The error to show of a group: a `PsycheError` before anything else."""
    if not isinstance(exc, BaseExceptionGroup):
        return exc
    leaves = [first_error(e) for e in exc.exceptions]
    return next((e for e in leaves if isinstance(e, PsycheError)), leaves[0])


def _sentence(exc: BaseException, translate: Translate | None) -> PsycheError:
    """The error as it is shown."""
    if isinstance(exc, PsycheError):
        return exc
    if translate is not None and (found := translate(exc)) is not None:
        return found
    text = str(exc).splitlines()[0] if str(exc) else ""
    return PsycheError(
        f"unexpected {type(exc).__name__}" + (f": {text}" if text else ""),
        "run the command again with --debug and report what it prints",
    )


def _fail(exc: BaseException, cause: BaseException, debug: bool, translate: Translate | None) -> int:
    if debug:
        import traceback

        traceback.print_exception(cause)
    shown = _sentence(exc, translate)
    output.error(shown)
    return shown.exit_code
