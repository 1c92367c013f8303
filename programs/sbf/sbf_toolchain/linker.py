"""The linker that rustc calls for the sbf-solana target: bitcode objects and rlibs in, a Solana program out.

One LLVM module is made of everything and optimised; the pass `SbfLower` removes what SBPF v0 cannot express;
the memory functions and 128-bit and float arithmetic are added where they are called; llc makes a BPF object
of it; `elf` makes the program. The environment variable SBF_CACHE names the prepared toolchain
(`cache.prepare`), SBF_OPT the optimisation level (1, 2, 3, s, z; default 2), and SBF_KEEP=1 keeps the
intermediate files.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import elf
from .errors import ToolchainError
from .tools import LLVM_SUFFIX, SBF_DIR

STACK_FRAME_BYTES = 4096
"""What the virtual machine gives a function of an SBPF v0 program."""

ENTRY = "entrypoint"
SECURITY_TXT = "SECURITY_TXT"
"""What a program says about itself (crate solana-security-txt): kept though nothing refers to it."""
OPTIMISATION_LEVELS = ("1", "2", "3", "s", "z")
OPTIONS_WITH_VALUE = ("--export-symbols", "-L", "--cpu", "--cpu-features", "--target")


@dataclass
class Arguments:
    """The parts of bpf-linker's command line that matter here."""

    objects: list[Path] = field(default_factory=list)
    rlibs: list[Path] = field(default_factory=list)
    output: Path | None = None


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Sort rustc's command line into objects, archives and the output file; the rest is ignored."""
    arguments = Arguments()
    words = iter(argv)
    for word in words:
        if word == "-o":
            arguments.output = Path(next(words, ""))
        elif word in OPTIONS_WITH_VALUE:
            next(words, None)
        elif word.endswith(".o") and os.path.basename(word) != "symbols.o":
            arguments.objects.append(Path(word))
        elif word.endswith((".rlib", ".a")):
            arguments.rlibs.append(Path(word))
    return arguments


def main() -> None:
    """Link as the command line says.

    A library that asks for a cdylib beside its rlib (solana-zk-sdk does) is no program, nor is a program that
    is built for another's `cpi` module: neither has an entry point, and an empty file stands for it. The
    latter has the real program's file name, so a file that is there stays.
    """
    arguments = parse_arguments(sys.argv[1:])
    cache = os.environ.get("SBF_CACHE")
    if not cache:
        raise ToolchainError("SBF_CACHE is not set; run cargo-build-sbf, which sets it")
    if arguments.output is None or not arguments.objects:
        raise ToolchainError("usage: sbf-ld OBJECT.o... [LIBRARY.rlib...] -o OUTPUT (rustc calls this)")
    symbols = llvm("llvm-nm", "--defined-only", *arguments.objects, capture=True)
    if not re.search(rf" T {ENTRY}$", symbols, re.MULTILINE):
        arguments.output.open("ab").close()
        return
    link(arguments.objects, arguments.rlibs, arguments.output, Path(cache))


def link(objects: Sequence[Path], rlibs: Sequence[Path], output: Path, cache: Path) -> None:
    """Link bitcode into the program `output`.

    Raises:
        ToolchainError: a stack frame is too large, a static can be written to, a symbol is undefined, or an
        LLVM tool
            failed. Nothing is written then.
    """
    work = Path(tempfile.mkdtemp(prefix="sbf-ld-"))
    try:
        module = link_modules(objects, rlibs, cache, work)
        check_symbols(llvm("llvm-dis", module, "-o", "-", capture=True), syscall_names())
        program = elf.link(compile_module(module, work), ENTRY)
        partial = output.with_name(output.name + ".tmp")
        partial.write_bytes(program)
        partial.replace(output)
    finally:
        if os.environ.get("SBF_KEEP"):
            print(f"sbf-ld: intermediate files in {work}", file=sys.stderr)
        else:
            shutil.rmtree(work, ignore_errors=True)


def link_modules(objects: Sequence[Path], rlibs: Sequence[Path], cache: Path, work: Path) -> Path:
    """Make one optimised and lowered LLVM module with nothing in it but what the entry point reaches."""
    level = os.environ.get("SBF_OPT", "2")
    if level not in OPTIMISATION_LEVELS:
        raise ToolchainError(f"SBF_OPT is {level!r}, allowed are {', '.join(OPTIMISATION_LEVELS)}")
    plugin = f"-load-pass-plugin={cache / 'SbfLower.so'}"
    files = list(objects)
    for rlib in rlibs:
        if not rlib.name.startswith("libcompiler_builtins"):
            files += unpack(rlib, work)
    everything, optimised, lowered, linked, final = (
        work / f"{name}.bc" for name in ("all", "opt", "low", "linked", "fin")
    )
    llvm("llvm-link", response_file(work / "in", files), "-o", everything)
    llvm(
        "opt",
        plugin,
        everything,
        f"-passes=sbf-prep,internalize,globaldce,lower-atomic,default<O{level}>",
        f"-internalize-public-api-list={ENTRY},{SECURITY_TXT},custom_panic",
        "-o",
        optimised,
    )
    llvm("opt", plugin, "-passes=sbf-lower", optimised, "-o", lowered)
    runtime = [cache / "rt.bc", "--only-needed", cache / "builtins.bc"]
    llvm("llvm-link", lowered, *runtime, "--internalize", "-o", linked)
    llvm(
        "opt",
        linked,
        "-passes=internalize,globaldce,instsimplify,simplifycfg,globaldce",
        f"-internalize-public-api-list={ENTRY},{SECURITY_TXT}",
        "-o",
        final,
    )
    return final


def compile_module(module: Path, work: Path) -> bytes:
    """Compile a module to a relocatable BPF object and return its bytes."""
    command = [
        f"llc{LLVM_SUFFIX}",
        "-O2",
        "-march=bpfel",
        "-mcpu=v2",
        "-mattr=+allows-misaligned-mem-access",
        f"-bpf-stack-size={STACK_FRAME_BYTES}",
        "-bpf-disable-trap-unreachable",
        "-filetype=obj",
        str(module),
        "-o",
        str(work / "out.o"),
    ]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        reasons = explain_diagnostics(result.stderr) or [result.stderr]
        raise ToolchainError("\n".join(["llc failed", *reasons]))
    sys.stderr.write(result.stderr)
    return (work / "out.o").read_bytes()


def check_symbols(assembly: str, syscalls: Collection[str]) -> None:
    """Refuse a module, given as LLVM assembly, that the loader would refuse.

    Raises:
        ToolchainError: it declares a function that is no syscall, or has a variable that can be written to.
    """
    declared = set(re.findall(r"^declare .*?@\"?([\w.$]+)", assembly, re.MULTILINE))
    unknown = sorted(name for name in declared if not name.startswith("llvm.") and name not in syscalls)
    if unknown:
        raise ToolchainError("undefined symbols that are not Solana syscalls: " + " ".join(unknown))
    variables = re.findall(r"^@(\S+) = (?:[a-z_]+ )*?global ", assembly, re.MULTILINE)
    writable = [name for name in variables if not name.startswith("llvm.")]
    if writable:  # the loader takes no section that can be written
        raise ToolchainError("statics that are written to or have interior mutability: " + " ".join(writable))


def explain_diagnostics(diagnostics: str) -> list[str]:
    """Turn llc's errors into one line each, frames that are too large last."""
    lines, frames = [], set()
    for found in re.finditer(r"error: .*? in function (\S+) .*?: (.*)", diagnostics):
        if "stack limit" in found[2]:
            frames.add(found[1])
        else:
            lines.append(f"{found[1]}: {found[2]}")
    return lines + [
        f"{name}: its stack frame is larger than {STACK_FRAME_BYTES} bytes" for name in sorted(frames)
    ]


def syscall_names() -> frozenset[str]:
    """Return the names that may stay undefined."""
    return frozenset((SBF_DIR / "syscalls.txt").read_text().split())


def prepare_builtins(rlib: Path, plugin: Path, output: Path) -> None:
    """Lower the parts of compiler_builtins that `SbfLower` calls, and write them as one module."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        llvm("llvm-link", response_file(work / "in", unpack(rlib, work)), "-o", work / "a.bc")
        llvm(
            "opt",
            work / "a.bc",
            "-passes=internalize,globaldce,lower-atomic,globaldce",
            "-internalize-public-api-list=" + ",".join(builtin_names()),
            "-o",
            work / "b.bc",
        )
        llvm("opt", f"-load-pass-plugin={plugin}", "-passes=sbf-lower", work / "b.bc", "-o", output)


def builtin_names() -> list[str]:
    """Name the functions of compiler_builtins for 128-bit integers and floats."""
    names = [f"__{op}ti3" for op in ("udiv", "div", "umod", "mod", "ashl", "lshr", "ashr")] + ["__multi3"]
    for kind in ("sf", "df"):
        names += [f"__{op}{kind}3" for op in ("add", "sub", "mul", "div")]
        names += [f"__{op}{kind}2" for op in ("eq", "ne", "lt", "le", "gt", "ge", "unord")]
        names += [f"__{op}{kind}{integer}" for op in ("fix", "fixuns") for integer in ("si", "di", "ti")]
        names += [f"__{op}{integer}{kind}" for op in ("float", "floatun") for integer in ("si", "di", "ti")]
    names += ["__extendsfdf2", "__truncdfsf2"]
    functions = ("fabs", "floor", "round", "ceil", "sqrt", "trunc", "copysign")
    return names + [function + suffix for function in functions for suffix in ("", "f")]


def llvm(tool: str, *arguments: object, capture: bool = False, cwd: Path | None = None) -> str:
    """Run an LLVM tool; what it says is shown only if it fails.

    Raises:
        ToolchainError: it failed.
    """
    stdout = subprocess.PIPE if capture else None
    command = [tool + LLVM_SUFFIX, *map(str, arguments)]
    result = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=cwd, check=False)
    if result.returncode:
        sys.stderr.write(result.stderr)
        raise ToolchainError(f"{tool} failed with status {result.returncode}")
    return result.stdout or ""


def unpack(rlib: Path, into: Path) -> list[Path]:
    """Unpack the bitcode members of an rlib into a folder of their own."""
    folder = into / f"{rlib.name}.d"
    folder.mkdir()
    names = [name for name in llvm("llvm-ar", "t", rlib, capture=True).split() if name.endswith(".o")]
    if names:
        llvm("llvm-ar", "x", rlib.absolute(), *names, cwd=folder)
    return [folder / name for name in names]


def response_file(path: Path, files: Sequence[Path]) -> str:
    """Write a response file, for command lines that would be too long, and return its argument."""
    path.write_text("\n".join(f'"{file}"' for file in files))
    return f"@{path}"
