"""Wallets: key files as Solana's own tools write them. A secret key is never printed."""

import json
import os
import stat
from pathlib import Path
from typing import Final

from solders.keypair import Keypair

from psyche_chain.errors import ConfigError

DEFAULT_PATH: Final = Path("~/.config/solana/id.json")
ENVIRONMENT: Final = "PSYCHE_KEYPAIR"


def wallet_path(path: Path | None = None) -> Path:
    """The key file to use: the one given, else `$PSYCHE_KEYPAIR`, else Solana's default."""
    return (path or Path(os.environ.get(ENVIRONMENT) or DEFAULT_PATH)).expanduser()


def load_wallet(path: Path | None = None) -> tuple[Keypair, str]:
    """Read a wallet; the second value is a warning, or empty.

    Raises:
        ConfigError: there is no such file or it is not a key file.
    """
    path = wallet_path(path)
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no wallet at {path}",
            f"make one with: psyche-chain wallet new --keypair {path}; or name yours with --keypair",
        ) from None
    except OSError as exc:
        raise ConfigError(
            f"the wallet {path} cannot be read: {exc.strerror}", "name another with --keypair"
        ) from None
    except UnicodeDecodeError:
        text = ""
    keypair = _parse(path, text)
    others = os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO)
    warning = f"others can read the wallet {path}; do: chmod 600 {path}" if others else ""
    return keypair, warning


def _parse(path: Path, text: str) -> Keypair:
    """The key pair in a key file. The cause of a failure is left out: it could quote a part of the secret."""
    try:
        numbers = json.loads(text)
        secret = bytes(numbers) if isinstance(numbers, list) and len(numbers) == 64 else None
    except (ValueError, TypeError, RecursionError):
        secret = None
    if secret is None:
        raise ConfigError(
            f"{path} is not a key file: a JSON list of 64 numbers from 0 to 255 is needed",
            "name another with --keypair, or make one with: psyche-chain wallet new",
        )
    try:
        return Keypair.from_bytes(secret)
    except ValueError:
        raise ConfigError(
            f"{path} is damaged: the public half of the key does not belong to the secret half",
            "restore it from your copy, or make a new one with: psyche-chain wallet new",
        ) from None


def new_key() -> Keypair:
    """A key pair that nobody has yet."""
    return Keypair()


def new_wallet(path: Path | None = None) -> Keypair:
    """Make a wallet and write it, readable by its owner only. An existing file is never overwritten.

    Raises:
        ConfigError: the file exists or cannot be written.
    """
    path = wallet_path(path)
    keypair = new_key()
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(list(bytes(keypair)), file)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        if not path.exists():
            raise ConfigError(
                f"the wallet {path} cannot be written: {path.parent} is not a folder",
                "name another file with --keypair",
            ) from None
        raise ConfigError(
            f"{path} exists; it is not overwritten", "name another file with --keypair"
        ) from None
    except OSError as exc:
        raise ConfigError(
            f"the wallet {path} cannot be written: {exc.strerror}", "name another file with --keypair"
        ) from None
    return keypair
