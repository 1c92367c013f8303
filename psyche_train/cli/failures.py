"""Errors of this package's modules, as the commands show them."""

from psyche_train.cli import exit_codes
from psyche_train.errors import PsycheError


def translate(exc: BaseException) -> PsycheError | None:
    """An error of ours, or of the operating system, as a sentence; None where it is a bug.

    All errors that this package's modules name are sentences for the user: the malformed ones (`ValueError`)
    are about a file. Their classes are not imported here, because most of them come with torch.
    """
    if type(exc).__module__.split(".")[0] == "psyche_train":
        status = exit_codes.CONFIG if isinstance(exc, ValueError) else exit_codes.ERROR
        return PsycheError(str(exc), exit_code=status)
    if isinstance(exc, OSError) and exc.strerror:
        where = f"{exc.filename}: " if exc.filename is not None else ""
        missing = isinstance(exc, FileNotFoundError)
        return PsycheError(
            f"{where}{exc.strerror[0].lower()}{exc.strerror[1:]}",
            exit_code=exit_codes.NOT_FOUND if missing else exit_codes.ERROR,
        )
    return None
