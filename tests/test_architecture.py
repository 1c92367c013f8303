"""The imports between packages point one way, as docs/architecture.md says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "psyche_train": {"psyche_train"},
    "psyche_chain": {"psyche_chain", "psyche_train"},
    "localnet": {"localnet", "psyche_chain", "psyche_train"},
}
OURS = set(ALLOWED) | {"tests", "benchmarks"}
SOLANA = {"solana", "solders", "anchorpy", "base58"}


def imported(path: Path) -> set[str]:
    """Top-level names of all absolute imports in a file, wherever in the file they stand."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_package_imports_only_what_the_house_allows(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no modules"
    wrong = {
        str(file.relative_to(ROOT)): sorted(bad)
        for file in files
        if (bad := (imported(file) & OURS) - ALLOWED[package])
    }
    assert wrong == {}


def test_training_knows_nothing_of_solana() -> None:
    wrong = {
        str(file.relative_to(ROOT)): sorted(bad)
        for file in sorted((ROOT / "psyche_train").rglob("*.py"))
        if (bad := imported(file) & SOLANA - {"base58"})
    }
    assert wrong == {}


def test_libp2p_stays_in_the_network_package() -> None:
    wrong = [
        str(file.relative_to(ROOT))
        for package in ALLOWED
        for file in sorted((ROOT / package).rglob("*.py"))
        if "libp2p" in imported(file) and "psyche_train/network" not in file.as_posix()
    ]
    assert wrong == []
