#!/usr/bin/env python3
"""Run sbf_toolchain.driver."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "sbf"))

from sbf_toolchain import driver
from sbf_toolchain.errors import run_main

if __name__ == "__main__":
    run_main("programs/build.py", driver.main)
