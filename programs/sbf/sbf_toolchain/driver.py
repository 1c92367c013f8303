"""The command `programs/build.py`: build this repository's programs into the Python package.

Writes psyche_chain/programs/NAME.so and NAME.json (the IDL), and programs/built-with.json: with what they
were built, from which sources, and their hashes. With --check it builds them once more from a copy of the
sources in another folder and compares: whoever has the same Debian packages can see that the committed
programs are what the sources say.

Solana's own cargo-build-sbf is used where it is on PATH. Its compiler is another one, so its programs differ
from the committed ones byte for byte: what is committed is built with --tools sbf, by programs/sbf.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .cache import INPUTS, cache_key
from .errors import ToolchainError
from .keys import ensure_keypair, use_declared_keypair
from .tools import SBF_DIR, find_tools

ROOT = SBF_DIR.parent.parent
PROGRAMS = ("authorizer", "coordinator", "treasurer")
PACKAGE_DATA = Path("psyche_chain/programs")
RECORD = Path("programs/built-with.json")
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
CALLER = Path("tests/programs/caller")
"""A program that calls others, for the tests; a cargo workspace of its own, so it has no part in the programs'."""
UNTRACKED = ("target", "__pycache__", "node_modules")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="programs/build.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="rebuild elsewhere and compare; write nothing")
    parser.add_argument(
        "--keys", action="store_true", help="only put the keys of the declared ids into target/deploy"
    )
    parser.add_argument(
        "--stage",
        action="store_true",
        help="build nothing: put keys, committed programs and IDLs into target, as a build leaves them there",
    )
    parser.add_argument(
        "--tools",
        choices=("auto", "sbf", "official"),
        default="auto",
        help="auto: official where installed, else sbf; --check always takes sbf",
    )
    arguments = parser.parse_args()
    if arguments.check:
        check(ROOT)
        return
    if arguments.keys or arguments.stage:
        stage_keys(ROOT)
        if arguments.stage:
            stage_programs(ROOT)
        return
    official = None if arguments.tools == "sbf" else find_official()
    if arguments.tools == "official" and official is None:
        raise ToolchainError(
            "Solana's cargo-build-sbf is not on PATH; install the Solana CLI or leave --tools out"
        )
    build(ROOT, official)


def build(root: Path, official: Path | None) -> None:
    """Build all programs and their IDLs into the package.

    Raises:
        ToolchainError: a tool is missing or failed. The package then still has its old files.
    """
    deploy = root / "target" / "deploy"
    deploy.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        ensure_keypair(deploy / f"{name}-keypair.json", root / "programs" / "keys")
    with tempfile.TemporaryDirectory(prefix="programs-") as folder:
        made = Path(folder)
        build_into(made, root, official, build_environment())
        (root / PACKAGE_DATA).mkdir(parents=True, exist_ok=True)
        for name in output_names():
            shutil.copyfile(made / name, root / PACKAGE_DATA / name)
        for name in PROGRAMS:
            shutil.copyfile(made / f"{name}.so", deploy / f"{name}.so")
        shutil.copyfile(made / "caller.so", root / CALLER / "caller.so")
    if official is None:
        (root / RECORD).write_text(json.dumps(make_record(root), indent=2) + "\n")
    for name in output_names():
        path = root / PACKAGE_DATA / name
        log(f"{path.relative_to(root)} ({path.stat().st_size} bytes)")
    if official is not None:
        log(
            f"built with {official}, whose bytes differ from those of programs/sbf: do not commit them; "
            f"`git checkout {PACKAGE_DATA}` brings the committed ones back, and "
            "`programs/build.py --tools sbf` makes ones to commit"
        )


def stage_keys(root: Path) -> None:
    """Put the programs' keypairs where Anchor looks for them; says what it changed."""
    deploy = target_folder(root) / "deploy"
    deploy.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        source = (root / "programs" / name / "src" / "lib.rs").read_text()
        declared = re.search(r'^declare_id!\("(\w+)"\)', source, re.M)
        if declared is None:
            raise ToolchainError(f"programs/{name}/src/lib.rs declares no id")
        path = deploy / f"{name}-keypair.json"
        if done := use_declared_keypair(path, root / "programs" / "keys", decode_base58(declared[1])):
            log(done)


def stage_programs(root: Path) -> None:
    """Copy the committed programs and IDLs to where `anchor deploy` and `anchor test --skip-build` look."""
    for kind, folder in (("so", "deploy"), ("json", "idl")):
        (target_folder(root) / folder).mkdir(parents=True, exist_ok=True)
        for name in PROGRAMS:
            committed = root / PACKAGE_DATA / f"{name}.{kind}"
            if not committed.is_file():
                raise ToolchainError(f"{committed} is missing: run `make programs`")
            shutil.copyfile(committed, target_folder(root) / folder / committed.name)
    log("target/deploy and target/idl hold the committed programs")


def target_folder(root: Path) -> Path:
    """Cargo's target folder, which Anchor uses too."""
    return Path(root, os.environ.get("CARGO_TARGET_DIR") or "target")


def decode_base58(text: str) -> bytes:
    """A Solana address as 32 bytes."""
    value = 0
    for character in text:
        value = value * 58 + BASE58.index(character)
    return value.to_bytes(32, "big")


def check(root: Path) -> None:
    """Build a copy of the sources in another folder and compare with the committed programs.

    Compiled dependencies are kept in target/check; the programs themselves are compiled every time.

    Raises:
        ToolchainError: files differ (they are named), or a tool is missing or failed.
    """
    with tempfile.TemporaryDirectory(prefix="check-programs-") as folder:
        copy, made = Path(folder, "workspace"), Path(folder, "made")
        made.mkdir()
        copy_sources(root, copy)
        environment = build_environment() | {"CARGO_TARGET_DIR": str(root / "target" / "check")}
        build_into(made, copy, None, environment)
        different = compare(root / PACKAGE_DATA, made, output_names())
        different += compare(root / CALLER, made, ["caller.so"])
    if different:
        raise ToolchainError(f"differ from their sources: {', '.join(different)}\n{why_different(root)}")
    log(f"{', '.join([*output_names(), 'caller.so'])}: equal to what their sources give")


def build_into(made: Path, root: Path, official: Path | None, environment: dict[str, str]) -> None:
    """Build the programs and IDLs of the workspace `root` into the folder `made`; Cargo.lock stays."""
    builder = official or SBF_DIR / "cargo-build-sbf"
    for name in PROGRAMS:
        manifest = root / "programs" / name / "Cargo.toml"
        if not manifest.is_file():
            raise ToolchainError(f"{manifest} is missing")
        command = [builder, "--manifest-path", manifest, "--sbf-out-dir", made, "--", "--locked"]
        run_step(command, environment, f"building {name}")
    for name in PROGRAMS:
        command = [SBF_DIR / "anchor-idl", root / "programs" / name, "-o", made / f"{name}.json", "--locked"]
        run_step(command, environment, f"describing {name}")
    manifest = root / CALLER / "Cargo.toml"
    command = [builder, "--manifest-path", manifest, "--sbf-out-dir", made, "--", "--locked"]
    elsewhere = {"CARGO_TARGET_DIR": str(root / "target" / "caller")} | environment
    run_step(command, elsewhere, "building the tests' caller")


def run_step(command: Sequence[object], environment: dict[str, str], what: str) -> None:
    """Run one tool, which says itself what is wrong if it fails."""
    status = subprocess.run([str(word) for word in command], env=environment, check=False).returncode
    if status:
        raise ToolchainError(f"{what} failed", status)


def find_official() -> Path | None:
    """Find Solana's cargo-build-sbf on PATH, passing over copies of programs/sbf."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        candidate = Path(folder or ".", "cargo-build-sbf").resolve()
        ours = (candidate.parent / "sbf-solana.json").exists()
        if candidate.is_file() and os.access(candidate, os.X_OK) and not ours:
            return candidate
    return None


def build_environment() -> dict[str, str]:
    """Return this process's environment without settings that would change what is built."""
    settings = (
        "CARGO_PROFILE_",
        "CARGO_BUILD_",
        "CARGO_TARGET_",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "SBF_OPT",
    )
    return {name: value for name, value in os.environ.items() if not name.startswith(settings)}


def copy_sources(root: Path, copy: Path) -> None:
    """Copy what a build of the programs reads."""
    copy.mkdir()
    for name in ("Cargo.toml", "Cargo.lock"):
        if not (root / name).is_file():
            raise ToolchainError(f"{root / name} is missing")
        shutil.copyfile(root / name, copy / name)
    for name in PROGRAMS:
        source = root / "programs" / name
        if source.is_dir():
            shutil.copytree(source, copy / "programs" / name, ignore=shutil.ignore_patterns(*UNTRACKED))
    if (root / CALLER).is_dir():
        shutil.copytree(root / CALLER, copy / CALLER, ignore=shutil.ignore_patterns(*UNTRACKED))


def output_names() -> list[str]:
    """Name the files that the package holds."""
    return [f"{name}.{kind}" for name in PROGRAMS for kind in ("so", "json")]


def compare(committed: Path, made: Path, names: Sequence[str]) -> list[str]:
    """Return those names whose committed files are absent or differ from those made."""
    return [
        name
        for name in names
        if not (committed / name).is_file() or (committed / name).read_bytes() != (made / name).read_bytes()
    ]


def why_different(root: Path) -> str:
    """Say what may be the cause of a difference, as far as the record of the last build shows it."""
    if not (root / RECORD).is_file():
        return f"{RECORD} is missing: run `make programs` and commit what it writes"
    recorded, here = json.loads((root / RECORD).read_text()), make_record(root)
    if recorded["sources"] != here["sources"]:
        return "the sources have changed since the last build: run `make programs` and commit what it writes"
    tools = [key for key in ("rustc", "llvm", "toolchain") if recorded.get(key) != here[key]]
    if tools:
        return "; ".join(f"{key}: built with {recorded.get(key)}, here is {here[key]}" for key in tools)
    return "neither sources nor tools have changed: the build is not reproducible, a bug in programs/sbf"


def make_record(root: Path) -> dict[str, Any]:
    """Describe the programs in the package: tools of this machine, hashes of sources and files."""
    tools = find_tools()
    return {
        "rustc": tools.rustc_version,
        "llvm": tools.llvm_version,
        "toolchain": cache_key(tools),
        "sources": source_digest(root),
        "sha256": file_digests(root),
    }


def file_digests(root: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of the package."""
    paths = [root / PACKAGE_DATA / name for name in output_names()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}


def source_digest(root: Path) -> str:
    """Hash everything in the repository that a program's bytes depend on: names and contents."""
    digest = hashlib.sha256()
    for path in source_files(root):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def source_files(root: Path) -> Iterator[Path]:
    """List those files in a fixed order."""
    yield root / "Cargo.toml"
    yield root / "Cargo.lock"
    for name in PROGRAMS:
        yield root / "programs" / name / "Cargo.toml"
        yield from sorted(path for path in (root / "programs" / name / "src").rglob("*") if path.is_file())
    for name in sorted((*INPUTS, "syscalls.txt")):
        yield root / "programs" / "sbf" / name


def log(message: str) -> None:
    """Say what was done, on stderr."""
    print(f"programs/build.py: {message}", file=sys.stderr, flush=True)
