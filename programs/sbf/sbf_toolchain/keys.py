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


def use_declared_keypair(path: Path, development_keys: Path, declared: bytes) -> str:
    """Put the development keypair at `path` where the source declares its id and another key is there.

    The Anchor CLI makes a new key for a program that has none before anything else runs, and would deploy the
    program to an address at which it refuses to work. The other key is kept beside it. Keys of ids that the
    source does not declare are left alone: whoever has ids of their own runs `anchor keys sync`.

    Args:
        path: ends in `NAME-keypair.json`.
        development_keys: folder of the committed keys.
        declared: the program's id in its source, 32 bytes.

    Returns:
        What was done, empty where nothing was.
    """
    name = path.name.removesuffix("-keypair.json")
    committed = development_keys / f"{name}-dev-keypair.json"
    if not path.exists():
        ensure_keypair(path, development_keys)
        return f"{path.name}: the development key"
    found = public_key(path)
    if found == declared or not committed.exists() or public_key(committed) != declared:
        return ""
    kept = path.with_name(f"{name}-keypair-{found.hex()[:8]}.json")
    path.replace(kept)
    ensure_keypair(path, development_keys)
    return f"{path.name}: the development key, whose id the source declares; what was there is in {kept.name}"


def public_key(path: Path) -> bytes:
    """The public half of a keypair file.

    Raises:
        ToolchainError: the file holds something else.
    """
    try:
        return bytes(json.loads(path.read_text()))[-PUBLIC_KEY_BYTES:]
    except (OSError, ValueError, TypeError) as error:
        raise ToolchainError(f"{path} is no keypair, a JSON list of 64 numbers: {error}") from None


def _openssl(arguments: list[str], data: bytes) -> bytes:
    result = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
    if result.returncode:
        raise ToolchainError(f"openssl {arguments[0]} failed: {result.stderr.decode().strip()}")
    return result.stdout
