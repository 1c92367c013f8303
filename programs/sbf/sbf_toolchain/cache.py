"""The prepared toolchain: what is derived once from the packages and this folder, and kept.

A cache folder holds `library` (patched source of std), `llvm` (libLLVM with Solana's data layout),
`SbfLower.so`, `rt.bc`, `builtins.bc` and `sysroot` (std compiled for sbf-solana). Its name is a hash of
everything that it is made from, so an old one is never used by mistake; `done` in it says that it is
complete.
"""

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

from . import linker
from .errors import ToolchainError
from .tools import LLVM_SUFFIX, SBF_DIR, TARGET, Tools, run

INPUTS = ("std.patch", "sbf-solana.json", "SbfLower.cpp", "rt.ll", "sbf-rustc")
RECIPE = b"2"
"""Changes when `prepare` makes something else of the same inputs."""

SEED_MANIFEST = """\
[package]
name = "seed"
version = "0.0.0"
edition = "2021"
[lib]
crate-type = ["rlib"]
[workspace]
exclude = ["library"]
[profile.release]
opt-level = 3
codegen-units = 1
[profile.release.build-override]
opt-level = 0
"""

SOLANA_LAYOUT = b"e-m:e-p:64:64-i64:64-i128:064-n32:64-S128\0"
BPF_LAYOUT = b"e-m:e-p:64:64-i64:64-i128:128-n32:64-S128\0"


def log(message: str) -> None:
    """Say what a build does, on stderr: stdout is for results."""
    print(f"cargo-build-sbf: {message}", file=sys.stderr, flush=True)


def cache_root() -> Path:
    """Return the folder of all prepared toolchains."""
    return Path(os.environ.get("SBF_CACHE_DIR") or Path.home() / ".cache" / "sbf-toolchain").absolute()


def cache_key(tools: Tools) -> str:
    """Name a toolchain by what it is made from; equal on all machines with equal packages."""
    digest = hashlib.sha256(RECIPE + tools.rustc_version.encode() + tools.llvm_version.encode())
    for name in INPUTS:
        digest.update((SBF_DIR / name).read_bytes())
    return f"{tools.release}-{digest.hexdigest()[:12]}"


def prepare(tools: Tools, jobs: str) -> Path:
    """Return the cache folder for these tools; make it first if it is not there (a minute or two, 290 MB).

    A second process that wants the same waits for the first one.

    Raises:
        ToolchainError: a step failed; the next call starts over.
    """
    root = cache_root()
    cache = root / cache_key(tools)
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache / "done").exists():
            start = time.monotonic()
            shutil.rmtree(cache, ignore_errors=True)
            cache.mkdir()
            log(f"preparing {cache}")
            fill(cache, tools, jobs)
            (cache / "done").touch()
            log(f"toolchain ready after {time.monotonic() - start:.0f} s")
    return cache


def fill(cache: Path, tools: Tools, jobs: str) -> None:
    """Make everything that a cache folder holds."""
    library = cache / "library"
    shutil.copytree(tools.rust_source, library, symlinks=True)
    run(["patch", "-p1", "-s", "-d", library, "-i", SBF_DIR / "std.patch"])
    flags = shlex.split(run([f"llvm-config{LLVM_SUFFIX}", "--cxxflags"], capture=True))
    plugin = cache / "SbfLower.so"
    run(["g++", "-shared", "-fPIC", "-O1", "-w", *flags, SBF_DIR / "SbfLower.cpp", "-o", plugin])
    run([f"llvm-as{LLVM_SUFFIX}", SBF_DIR / "rt.ll", "-o", cache / "rt.bc"])
    patch_llvm(cache / "llvm")
    libraries = build_sysroot(cache, tools, jobs)
    os.environ["LD_LIBRARY_PATH"] = build_environment(cache)["LD_LIBRARY_PATH"]
    [builtins] = libraries.glob("libcompiler_builtins*.rlib")
    linker.prepare_builtins(builtins, plugin, cache / "builtins.bc")


def patch_llvm(folder: Path) -> None:
    """Copy libLLVM with one string changed: Solana aligns 128-bit integers to 8 bytes.

    LLVM's BPF target aligns them to 16 bytes, and rustc insists that a target specification has the layout of
    LLVM's target. So the string in the library is replaced by one of the same length.
    """
    needed = run(["ldd", f"/usr/bin/opt{LLVM_SUFFIX}"], capture=True)
    found = re.search(r"^\s*(libLLVM\S*) => (\S+)", needed, re.MULTILINE)
    if not found:
        raise ToolchainError(f"opt{LLVM_SUFFIX} does not use a shared libLLVM; install Debian's llvm-22")
    library = Path(found[2]).resolve()
    data = library.read_bytes()
    if data.count(BPF_LAYOUT) != 1:
        raise ToolchainError(
            f"{library}: the BPF data layout was found {data.count(BPF_LAYOUT)} times, not once"
        )
    folder.mkdir()
    (folder / found[1]).write_bytes(data.replace(BPF_LAYOUT, SOLANA_LAYOUT))


def build_sysroot(cache: Path, tools: Tools, jobs: str) -> Path:
    """Compile std once, as a dependency of an empty crate, and return the folder of its rlibs.

    The crate lies above std's source, so that rustc is given paths relative to the cache folder.
    """
    target_dir = cache / "seed-target"
    (cache / "src").mkdir()
    (cache / "src" / "lib.rs").touch()
    (cache / "Cargo.toml").write_text(SEED_MANIFEST)
    environment = build_environment(cache) | {
        "CARGO_TARGET_DIR": str(target_dir),
        "CARGO_ENCODED_RUSTFLAGS": "",
    }
    environment["__CARGO_TESTS_ONLY_SRC_ROOT"] = str(cache / "library")
    command = [
        tools.cargo,
        "build",
        "--release",
        "-Zbuild-std=std,panic_abort",
        "-j",
        jobs,
        "--target",
        TARGET,
    ]
    run(command, cwd=cache, env=environment)
    libraries = cache / "sysroot" / "lib" / "rustlib" / TARGET / "lib"
    libraries.mkdir(parents=True)
    for rlib in sorted((target_dir / TARGET / "release" / "deps").glob("*.rlib")):
        if not rlib.name.startswith("libseed"):
            shutil.copy(rlib, libraries)
    for folder in (target_dir, cache / "src"):
        shutil.rmtree(folder)
    for file in ("Cargo.toml", "Cargo.lock"):
        (cache / file).unlink()
    return libraries


def build_environment(cache: Path) -> dict[str, str]:
    """Return the environment in which cargo and rustc run.

    Settings that would change the program's bytes from outside (compiler wrappers, incremental builds) are
    switched off. SBF_SYSROOT and SBF_WORKSPACE, which `sbf-rustc` reads, are up to the caller.
    """
    environment = dict(os.environ)
    for name in ("RUSTUP_TOOLCHAIN", "CARGO_BUILD_TARGET", "SBF_SYSROOT", "SBF_WORKSPACE", "RUSTFLAGS"):
        environment.pop(name, None)
    library_path = [str(cache / "llvm"), environment.get("LD_LIBRARY_PATH", "")]
    return environment | {
        "LD_LIBRARY_PATH": ":".join(filter(None, library_path)),
        "RUSTC": str(SBF_DIR / "sbf-rustc"),
        "RUSTC_WRAPPER": "",
        "RUSTC_WORKSPACE_WRAPPER": "",
        "RUSTC_BOOTSTRAP": "1",
        "RUST_TARGET_PATH": str(SBF_DIR),
        "CARGO_INCREMENTAL": "0",
        "CARGO_CACHE_RUSTC_INFO": "0",
        "CARGO_TARGET_SBF_SOLANA_LINKER": str(SBF_DIR / "sbf-ld"),
        "SBF_CACHE": str(cache),
    }
