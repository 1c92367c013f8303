"""Where the compiler tools are, and which Debian packages bring them."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ToolchainError

SBF_DIR = Path(__file__).resolve().parent.parent
"""The folder with `cargo-build-sbf`, the target specification and the LLVM pass."""

TARGET = "sbf-solana"
LLVM_VERSION = "22"
LLVM_SUFFIX = f"-{LLVM_VERSION}"


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Paths of the compiler, cargo and the standard library's source, and what version they are."""

    rustc: Path
    cargo: Path
    rust_source: Path
    release: str
    """rustc's release, like `1.96.0`."""
    rustc_version: str
    """rustc's first version line."""
    llvm_version: str


def rustc_path() -> Path:
    """Return the compiler to use: `$SBF_RUSTC`, else Debian's."""
    return Path(os.environ.get("SBF_RUSTC", "/usr/bin/rustc"))


def cargo_path() -> Path:
    """Return the cargo to use: `$SBF_CARGO`, else Debian's."""
    return Path(os.environ.get("SBF_CARGO", "/usr/bin/cargo"))


def package_files() -> dict[str, list[Path]]:
    """Map each Debian package to files that show that it is installed."""
    llvm_tools = ("llvm-link", "opt", "llc", "llvm-ar", "llvm-as", "llvm-dis", "llvm-nm")
    return {
        "rustc-web": [rustc_path()],
        "cargo-web": [cargo_path()],
        "llvm-22": [Path(f"/usr/bin/{tool}{LLVM_SUFFIX}") for tool in llvm_tools],
        "llvm-22-dev": [
            Path(f"/usr/bin/llvm-config{LLVM_SUFFIX}"),
            Path(f"/usr/lib/llvm-{LLVM_VERSION}/include/llvm/IR/Module.h"),
        ],
        "g++": [Path(shutil.which("g++") or "/usr/bin/g++")],
        "patch": [Path(shutil.which("patch") or "/usr/bin/patch")],
        "openssl": [Path(shutil.which("openssl") or "/usr/bin/openssl")],
    }  # and rust-web-src: `rust_source`; `packages.txt` lists all


def rust_source(release: str) -> Path | None:
    """Find the folder `library` of the compiler's source: `$SBF_RUST_SRC`, else Debian's."""
    candidates = [os.environ.get("SBF_RUST_SRC"), f"/usr/src/rustc-{release}/library"]
    for folder in candidates:
        if folder and Path(folder, "std/build.rs").is_file():
            return Path(folder)
    return None


def missing_packages(files: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return the packages of which a file is absent."""
    return [package for package, paths in files.items() if not all(path.exists() for path in paths)]


def find_tools() -> Tools:
    """Find every tool that a build needs.

    Raises:
        ToolchainError: a package is missing (the message is the apt command), or rustc is built on another
        LLVM.
    """
    missing = missing_packages(package_files())
    rustc, source, fields, verbose = rustc_path(), None, {}, ""
    if rustc.exists():
        verbose = run([rustc, "-vV"], capture=True)
        fields = dict(line.split(": ", 1) for line in verbose.splitlines() if ": " in line)
        llvm = fields.get("LLVM version", "unknown")
        if not llvm.startswith(LLVM_VERSION + "."):
            raise ToolchainError(
                f"{rustc} is built on LLVM {llvm}, LLVM {LLVM_VERSION} is needed: "
                "install Debian's rustc-web or point SBF_RUSTC at another rustc"
            )
        source = rust_source(fields["release"])
    if source is None:
        missing.append("rust-web-src")
    if missing or source is None:
        names = " ".join(sorted(set(missing)))
        raise ToolchainError(f"missing tools; run: apt-get install {names} (programs/install-toolchain does)")
    return Tools(
        rustc=rustc,
        cargo=cargo_path(),
        rust_source=source,
        release=fields["release"],
        rustc_version=verbose.splitlines()[0],
        llvm_version=fields["LLVM version"],
    )


def run(command: Sequence[object], *, capture: bool = False, **options: Any) -> str:
    """Run a command to its end and return what it printed if `capture`, else the empty string.

    Raises:
        ToolchainError: it ended with a status other than 0; the status is handed on.
    """
    stdout = subprocess.PIPE if capture else None
    result = subprocess.run([str(word) for word in command], stdout=stdout, text=True, check=False, **options)
    if result.returncode:
        shown = " ".join(str(word) for word in command[:3])
        raise ToolchainError(f"{shown} ... failed with status {result.returncode}", result.returncode)
    return result.stdout or ""
