"""The linker: rustc's command line, and what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sbf_toolchain import linker
from sbf_toolchain.errors import ToolchainError
from sbf_toolchain.tools import LLVM_SUFFIX, SBF_DIR

HEADER = """\
target datalayout = "e-m:e-p:64:64-i64:64-i128:064-n32:64-S128"
target triple = "bpfel"
"""
LOG = """
@text = private unnamed_addr constant [5 x i8] c"hello"
declare void @sol_log_(ptr, i64)
"""


def test_parse_arguments_sorts_rustc_command_line() -> None:
    line = "--export-symbols list.o symbols.o a.o libx.rlib liby.a --cpu v2 -O3 b.o -L lib.rlib -o out.so"
    found = linker.parse_arguments(line.split())
    assert found.objects == [Path("a.o"), Path("b.o")]
    assert found.rlibs == [Path("libx.rlib"), Path("liby.a")]
    assert found.output == Path("out.so")


@pytest.mark.parametrize(
    ("assembly", "message"),
    [
        ("declare void @sol_log_(ptr, i64)\ndeclare i64 @write(i32)", "undefined symbols .*: write$"),
        ('declare void @"_ZN4core3foo"(ptr)', "undefined symbols .*: _ZN4core3foo$"),
        ("@counter = internal global i64 0", "statics .*: counter$"),
        ("@cell = internal unnamed_addr global { i64 } zeroinitializer", "statics .*: cell$"),
    ],
)
def test_check_symbols_refuses_what_the_loader_refuses(assembly: str, message: str) -> None:
    with pytest.raises(ToolchainError, match=message):
        linker.check_symbols(assembly, linker.syscall_names())


def test_check_symbols_passes_syscalls_intrinsics_and_constants() -> None:
    assembly = (
        "declare void @sol_log_(ptr, i64)\ndeclare void @llvm.assume(i1)\n@text = internal constant i64 1\n"
        "@llvm.used = appending global [0 x ptr] []"
    )
    linker.check_symbols(assembly, linker.syscall_names())


def test_explain_diagnostics_gives_one_line_a_function() -> None:
    said = "\n".join(
        f"error: <unknown>:0:0: in function {name} i64 (ptr): {what}"
        for name, what in [
            ("big", "Looks like the BPF stack limit is exceeded. Please move large on stack variables"),
            ("wide", "too many arguments"),
            ("big", "Looks like the BPF stack limit is exceeded. Please move large on stack variables"),
        ]
    )
    assert linker.explain_diagnostics(said) == [
        "wide: too many arguments",
        "big: its stack frame is larger than 4096 bytes",
    ]


def test_main_without_cache_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SBF_CACHE", raising=False)
    monkeypatch.setattr(sys, "argv", ["sbf-ld", "a.o", "-o", "out.so"])
    with pytest.raises(ToolchainError, match="run cargo-build-sbf"):
        linker.main()


def sbf_ld(
    source: str, folder: Path, cache: Path, **environment: str
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Assemble LLVM source and link it as rustc would."""
    output = folder / "program.so"
    (folder / "program.ll").write_text(HEADER + source)
    subprocess.run([f"llvm-as{LLVM_SUFFIX}", "program.ll", "-o", "program.o"], cwd=folder, check=True)
    variables = os.environ | {"SBF_CACHE": str(cache), "LD_LIBRARY_PATH": str(cache / "llvm")} | environment
    command = [SBF_DIR / "sbf-ld", "program.o", "-o", output]
    return output, subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.xdist_group("toolchain")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "declare void @fill(ptr)\n"
            "define i64 @entrypoint(ptr %input) { %a = alloca [5000 x i8]\n"
            "call void @sol_memset_(ptr %a, i64 1, i64 5000)\n"
            "call void @sol_log_(ptr %a, i64 5000)\nret i64 0 }\n"
            "declare void @sol_memset_(ptr, i64, i64)\n" + LOG,
            "entrypoint: its stack frame is larger than 4096 bytes",
        ),
        (
            "@counter = internal global i64 0\n"
            "define i64 @entrypoint(ptr %input) { %a = load volatile i64, ptr @counter\n"
            "store volatile i64 7, ptr @counter\nret i64 %a }",
            "statics that are written to or have interior mutability: counter",
        ),
        (
            "declare i64 @getpid()\n"
            "define i64 @entrypoint(ptr %input) { %a = call i64 @getpid()\nret i64 %a }",
            "undefined symbols that are not Solana syscalls: getpid",
        ),
    ],
    ids=["frame", "static", "symbol"],
)
def test_link_refuses_by_name_and_writes_nothing(
    toolchain: Path, tmp_path: Path, source: str, message: str
) -> None:
    output, result = sbf_ld(source, tmp_path, toolchain)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.xdist_group("toolchain")
def test_link_small_program_is_equal_twice(toolchain: Path, tmp_path: Path) -> None:
    source = LOG + "define i64 @entrypoint(ptr %i) { call void @sol_log_(ptr @text, i64 5)\nret i64 0 }"
    programs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        output, result = sbf_ld(source, tmp_path / name, toolchain)
        assert result.returncode == 0, result.stderr
        programs.append(output.read_bytes())
    assert programs[0] == programs[1]
    assert b"hello" in programs[0]


@pytest.mark.slow
@pytest.mark.xdist_group("toolchain")
def test_link_library_without_entry_point_leaves_an_empty_file(toolchain: Path, tmp_path: Path) -> None:
    output, result = sbf_ld("define i64 @helper() { ret i64 0 }", tmp_path, toolchain)
    assert result.returncode == 0, result.stderr
    assert output.read_bytes() == b""


@pytest.mark.slow
@pytest.mark.xdist_group("toolchain")
def test_link_unknown_optimisation_level_is_refused(toolchain: Path, tmp_path: Path) -> None:
    source = "define i64 @entrypoint(ptr %i) { ret i64 0 }"
    _, result = sbf_ld(source, tmp_path, toolchain, SBF_OPT="9")
    assert result.returncode == 1
    assert "SBF_OPT is '9', allowed are 1, 2, 3, s, z" in result.stderr
    _, result = sbf_ld(source, tmp_path, toolchain, SBF_OPT="z")
    assert result.returncode == 0, result.stderr
