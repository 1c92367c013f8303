"""Packages of a committed npm lock file, installed once for all test runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

LEAST_NODE = 20
FILES = ("package.json", "package-lock.json")


def node_modules(lock_folder: Path) -> Path:
    """`node_modules` with what the folder's lock file names; skips, with the reason, where that cannot be had.

    Args:
        lock_folder: holds package.json and package-lock.json.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed: the JavaScript clients are not tested")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < LEAST_NODE:
        pytest.skip(f"node is {version.strip()}, the JavaScript clients need {LEAST_NODE}")
    lock = b"".join((lock_folder / name).read_bytes() for name in FILES)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "psyche-tests"
    folder = base / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copy(lock_folder / name, folder / name)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            pytest.skip("npm did not install the JavaScript clients within 300 s")
        if done.returncode != 0:
            pytest.skip(f"npm could not install the JavaScript clients: {done.stderr.strip()[-300:]}")
        (folder / "installed").touch()
    return folder / "node_modules"
