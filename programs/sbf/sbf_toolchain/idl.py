"""The command `anchor-idl`: write a program's IDL as `anchor idl build` does, without the Anchor CLI.

The program needs the feature idl-build = ["anchor-lang/idl-build", ...]. Anchor's macros then add tests that
print the parts of the description; they are run and put together here.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ToolchainError
from .tools import cargo_path, rustc_path

TEST_NAME = "__anchor_private_print_idl"
KEY_ORDER = (
    "name",
    "docs",
    "discriminator",
    "serialization",
    "repr",
    "generics",
    "kind",
    "type",
    "fields",
    "variants",
)
BEGIN, END = "--- IDL begin ", "--- IDL end "


@dataclass
class Parts:
    """What the tests of one program printed."""

    address: str = ""
    program: dict[str, Any] | None = None
    errors: list[Any] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    types: dict[str, Any] = field(default_factory=dict)

    def add(self, kind: str, text: str) -> None:
        """Take in one part."""
        value = json.loads(text)
        if kind == "const":
            self.constants.append(value)
        elif kind == "event":
            self.events.append(value["event"])
            self.types.update((t["name"], t) for t in value["types"])
        elif kind == "errors":
            self.errors = value
        elif kind == "program":
            self.program = value


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="anchor-idl", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path, help="folder of the program's Cargo.toml")
    parser.add_argument("-o", "--out", type=Path, help="default: stdout")
    parser.add_argument("--toolchain", help="build with this rustup toolchain instead of Debian's cargo")
    parser.add_argument(
        "--no-resolution", action="store_true", help="leave out how clients can find accounts"
    )
    parser.add_argument("--locked", action="store_true", help="fail if Cargo.lock would change")
    arguments = parser.parse_args()
    text = build_idl(
        arguments.dir,
        toolchain=arguments.toolchain,
        resolution=not arguments.no_resolution,
        locked=arguments.locked,
    )
    if arguments.out:
        arguments.out.write_text(text)
    else:
        sys.stdout.write(text)


def build_idl(
    program: Path, *, toolchain: str | None = None, resolution: bool = True, locked: bool = False
) -> str:
    """Return a program's IDL as JSON text that ends in a newline.

    Debian's cargo builds it where it is installed, else the cargo on PATH: then nothing else in the
    environment decides which compiler is used.

    Raises:
        ToolchainError: there is no cargo, cargo failed (it has said why), or no IDL was printed.
    """
    folder = program.resolve()
    if not (folder / "Cargo.toml").is_file():
        raise ToolchainError(f"{folder} has no Cargo.toml; name the folder of one program")
    environment = dict(
        os.environ,
        ANCHOR_IDL_BUILD_NO_DOCS="FALSE",
        ANCHOR_IDL_BUILD_RESOLUTION="TRUE" if resolution else "FALSE",
        ANCHOR_IDL_BUILD_SKIP_LINT="TRUE",
        ANCHOR_IDL_BUILD_PROGRAM_PATH=str(folder),
        RUSTFLAGS="-A warnings",
        CARGO_PROFILE_DEV_DEBUG="0",
    )
    environment.pop("RUSTC_BOOTSTRAP", None)
    command = ["cargo", f"+{toolchain}"] if toolchain else ["cargo"]
    if not toolchain and cargo_path().exists() and rustc_path().exists():
        command = [str(cargo_path())]
        environment["RUSTC"] = str(rustc_path())
    command += ["test", "--lib", TEST_NAME, "--features", "idl-build"] + (["--locked"] if locked else [])
    command += ["--", "--show-output", "--quiet", "--test-threads=1"]
    try:
        result = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
    except FileNotFoundError:
        raise ToolchainError("cargo is not installed; run programs/install-toolchain") from None
    if result.returncode:
        raise ToolchainError(f"cargo test failed for {folder.name}", result.returncode)
    return render(parse(result.stdout))


def parse(output: str) -> Parts:
    """Collect the parts from what the tests printed."""
    parts, kind, lines = Parts(), "", list[str]()
    for line in output.splitlines():
        if line.startswith(BEGIN):
            kind, lines = line.removeprefix(BEGIN).removesuffix(" ---"), []
        elif kind == "address":
            parts.address, kind = "".join(c for c in line if c.isalnum()), ""
        elif kind and line == f"{END}{kind} ---":
            parts.add(kind, "\n".join(lines))
            kind = ""
        elif kind:
            lines.append(line)
    return parts


def render(parts: Parts) -> str:
    """Put the parts together in the order that `anchor idl build` has.

    Raises:
        ToolchainError: there is no program among them.
    """
    program = parts.program
    if program is None:
        raise ToolchainError(
            "no IDL was printed: does the program have #[program] and the feature idl-build?"
        )
    types = parts.types | {t["name"]: t for t in program.get("types", [])}
    idl: dict[str, Any] = {"address": parts.address}
    if "metadata" in program:
        idl["metadata"] = program["metadata"]
    if program.get("docs"):
        idl["docs"] = program["docs"]
    idl["instructions"] = program.get("instructions", [])
    optional = {
        "accounts": program.get("accounts", []),
        "events": parts.events,
        "errors": parts.errors,
        "types": list(types.values()),
        "constants": parts.constants,
    }
    idl |= {key: value for key, value in optional.items() if value}
    return json.dumps(in_order(rename(idl, short_names(list(types)))), indent=2) + "\n"


def in_order(idl: dict[str, Any]) -> dict[str, Any]:
    """Sort the lists by name, as Anchor does, and bring keys into Anchor's order."""
    for key in ("instructions", "accounts", "events", "types", "constants"):
        if key in idl:
            idl[key] = sorted(idl[key], key=lambda item: str(item["name"]))
    for key in ("events", "types"):  # Anchor prints these from maps, whose keys are sorted
        if key in idl:
            idl[key] = [keys_in_order(item) for item in idl[key]]
    return idl


def keys_in_order(value: Any) -> Any:
    """Return a definition whose keys, at every depth, are in the order of Anchor's own output."""
    if isinstance(value, list):
        return [keys_in_order(item) for item in value]
    if not isinstance(value, dict):
        return value
    known = [key for key in KEY_ORDER if key in value]
    others = [key for key in value if key not in KEY_ORDER]
    return {key: keys_in_order(value[key]) for key in known + others}


def short_names(names: list[str]) -> dict[str, str]:
    """Map type paths (`a::b::T`) to their last part, unless two types share it."""
    by_last: dict[str, set[str]] = {}
    for name in names:
        by_last.setdefault(name.rsplit("::", 1)[-1], set()).add(name)
    return {name: last for last, full in by_last.items() if len(full) == 1 for name in full}


def rename(value: Any, names: dict[str, str]) -> Any:
    """Replace every `name` in a JSON value that stands in `names`."""
    if isinstance(value, dict):
        return {
            key: names.get(item, item) if key == "name" and isinstance(item, str) else rename(item, names)
            for key, item in value.items()
        }
    return [rename(item, names) for item in value] if isinstance(value, list) else value
