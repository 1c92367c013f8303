"""Program keypairs in the Solana CLI's format: a JSON list of 64 numbers, secret key then public key."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from .errors import ToolchainError

PUBLIC_KEY_BYTES = 32


def ensure_keypair(path: Path, development_keys: Path) -> None:
    """Put a program's keypair at `path`, which ends in `NAME-keypair.json`, unless one is there.

    It is a copy of `NAME-dev-keypair.json` in `development_keys` where that exists, else a new one.

    Raises:
        ToolchainError: openssl failed.
    """
    if path.exists():
        return
    name = path.name.removesuffix("-keypair.json")
    committed = development_keys / f"{name}-dev-keypair.json"
    if committed.exists():
        shutil.copyfile(committed, path)
        path.chmod(0o600)
        return
    secret = _openssl(["genpkey", "-algorithm", "ed25519", "-outform", "DER"], b"")
    public = _openssl(["pkey", "-inform", "DER", "-pubout", "-outform", "DER"], secret)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(list(secret[-PUBLIC_KEY_BYTES:] + public[-PUBLIC_KEY_BYTES:]), file)


def _openssl(arguments: list[str], data: bytes) -> bytes:
    result = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
    if result.returncode:
        raise ToolchainError(f"openssl {arguments[0]} failed: {result.stderr.decode().strip()}")
    return result.stdout
