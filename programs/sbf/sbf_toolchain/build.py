"""The command `cargo-build-sbf`: build every program of a package or workspace.

Writes NAME.so and NAME-keypair.json to target/deploy. The patched standard library, the LLVM pass and the
sysroot are made once, in $SBF_CACHE_DIR (default ~/.cache/sbf-toolchain). A program's bytes depend on its
sources, Cargo.lock, the features and the Debian packages, and on no folder.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import elf, linker
from .cache import build_environment, log, prepare
from .errors import ToolchainError
from .keys import ensure_keypair
from .tools import SBF_DIR, TARGET, Tools, find_tools, run


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for; `cargo_args` go to `cargo build` as they are."""

    manifest: Path = Path("Cargo.toml")
    out_dir: Path | None = None
    features: Sequence[str] = ()
    default_features: bool = True
    jobs: str = "1"
    prepare_only: bool = False
    version: bool = False
    cargo_args: Sequence[str] = field(default=())


def parse_arguments(argv: Sequence[str]) -> Options:
    """Read the command line, also when cargo calls it as `cargo build-sbf`."""
    words = list(argv[1:] if argv[:1] == ["build-sbf"] else argv)
    extra: list[str] = []
    if "--" in words:
        split = words.index("--")
        words, extra = words[:split], words[split + 1 :]
    parser = argparse.ArgumentParser(
        prog="cargo-build-sbf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest-path", type=Path, default=Path("Cargo.toml"))
    parser.add_argument("--sbf-out-dir", type=Path, help="default: target/deploy of the workspace")
    parser.add_argument("--features", action="append", default=[])
    parser.add_argument("--no-default-features", action="store_true")
    parser.add_argument("-j", "--jobs", default=str(os.cpu_count() or 1))
    parser.add_argument(
        "--prepare", action="store_true", help="prepare the toolchain, print its folder and stop"
    )
    parser.add_argument("--version", "-V", action="store_true")
    for option in ("--tools-version", "--arch"):
        parser.add_argument(option, help="ignored: there is one, SBPF v0")
    for option in ("--force-tools-install", "--skip-tools-install"):
        parser.add_argument(option, action="store_true", help="ignored")
    parser.add_argument("rest", nargs="*", help="more arguments for cargo build, as those after --")
    found = parser.parse_args(words)
    return Options(
        manifest=found.manifest_path,
        out_dir=found.sbf_out_dir,
        features=found.features,
        default_features=not found.no_default_features,
        jobs=found.jobs,
        prepare_only=found.prepare,
        version=found.version,
        cargo_args=[*extra, *found.rest],
    )


def main() -> None:
    """Run the command."""
    options = parse_arguments(sys.argv[1:])
    tools = find_tools()
    if options.version:
        print(f"solana-cargo-build-sbf 0.0.0 (Debian rustc {tools.release})")
        print(f"platform-tools none\nrustc {tools.release}")
    elif options.prepare_only:
        print(prepare(tools, options.jobs))
    else:
        build(options, tools, prepare(tools, options.jobs))


def build(options: Options, tools: Tools, cache: Path) -> list[Path]:
    """Build the package of the manifest, or all programs of its workspace, and return the files written.

    Raises:
        ToolchainError: there is no manifest, or cargo failed (with its exit status; it has said why).
    """
    start = time.monotonic()
    manifest = options.manifest.resolve()
    if not manifest.is_file():
        raise ToolchainError(f"no manifest at {manifest}; name one with --manifest-path")
    environment = build_environment(cache)
    command = [tools.cargo, "metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest]
    metadata = json.loads(run(command, capture=True, env=environment))
    workspace = Path(metadata["workspace_root"])
    environment |= {
        "SBF_SYSROOT": str(cache / "sysroot"),
        "SBF_WORKSPACE": str(workspace.resolve()),
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(
            [link_marker(cache), *os.environ.get("RUSTFLAGS", "").split()]
        ),
    }
    environment.setdefault("CARGO_PROFILE_RELEASE_BUILD_OVERRIDE_OPT_LEVEL", "0")
    out_dir = (options.out_dir or Path(metadata["target_directory"], "deploy")).absolute()
    out_dir.mkdir(parents=True, exist_ok=True)
    written = []
    # One cargo call a program: in one call for all, the `cpi` feature that a program asks of another would
    # take the other's entry point away.
    for package in select_programs(metadata["packages"], manifest):
        for name, program in build_package(package, options, tools, environment):
            destination = out_dir / f"{name}.so"
            shutil.copyfile(program, destination)
            ensure_keypair(out_dir / f"{name}-keypair.json", workspace / "programs" / "keys")
            log(f"{destination} ({destination.stat().st_size} bytes)")
            written.append(destination)
    log(f"finished in {time.monotonic() - start:.0f} s")
    return written


def link_marker(cache: Path) -> str:
    """Return a flag that changes nothing but makes cargo build again when toolchain or linker change.

    It is a remap that never matches: where paths are remapped, cargo keeps flags out of the crate metadata.
    """
    digest = hashlib.sha256(os.environ.get("SBF_OPT", "").encode())
    for path in (SBF_DIR / "syscalls.txt", Path(linker.__file__), Path(elf.__file__)):
        digest.update(path.read_bytes())
    return f"--remap-path-prefix=/sbf-toolchain/{cache.name}-{digest.hexdigest()[:12]}=/sbf"


def select_programs(packages: Sequence[dict[str, Any]], manifest: Path) -> list[dict[str, Any]]:
    """Return the package with this manifest if it is a program, else all programs of the workspace."""
    programs = [p for p in packages if any("cdylib" in t["crate_types"] for t in p["targets"])]
    own = [p for p in programs if Path(p["manifest_path"]).resolve() == manifest]
    return own or programs


def build_package(
    package: dict[str, Any], options: Options, tools: Tools, environment: dict[str, str]
) -> list[tuple[str, Path]]:
    """Run cargo for one program and return the name and file of each that it made."""
    command = [str(tools.cargo), "build", "--release", "--lib", "-j", options.jobs, "--target", TARGET]
    command += ["--manifest-path", package["manifest_path"], "--message-format=json-render-diagnostics"]
    for feature in options.features:
        command += ["--features", feature]
    if not options.default_features:
        command.append("--no-default-features")
    made = []
    with subprocess.Popen(
        [*command, *options.cargo_args], env=environment, stdout=subprocess.PIPE, text=True
    ) as cargo:
        assert cargo.stdout is not None
        for line in cargo.stdout:
            made += programs_in_message(line, package["id"])
    if cargo.returncode:
        raise ToolchainError(f"cargo build failed for {package['name']}", cargo.returncode)
    return made


def programs_in_message(line: str, package_id: str) -> list[tuple[str, Path]]:
    """Return the programs of a package that one line of cargo's JSON output reports."""
    try:
        message = json.loads(line)
    except ValueError:
        return []
    if message.get("reason") != "compiler-artifact" or message["package_id"] != package_id:
        return []
    target = message["target"]
    if "cdylib" not in target["crate_types"]:
        return []
    files = [Path(f) for f in message["filenames"] if f.endswith(".so") and TARGET in Path(f).parts]
    # empty: a library that also asks for a cdylib, and has no entry point
    return [(target["name"].replace("-", "_"), file) for file in files if file.stat().st_size]
