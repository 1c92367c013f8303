"""What a run of 16, 64 or 256 members asks of the chain, the links and a member's processors, and what breaks first.

    python -m benchmarks.scale                 # measures the constants, simulates the exchange, prints the tables
    python -m benchmarks.scale --write         # the same into docs/scale.md
    python -m benchmarks.scale --seed 2 --ranges 8

Constants are measured here, with the code that a member runs: the size of the chain's accounts and of their
answers, the time to read them, the bytes of an update, the time to decode, fold and check updates. What this
machine cannot run, 256 members with 40 billion parameters, is then computed from them, and the exchange of
updates is simulated: every member fetches all others' updates in ranges from whoever holds them, rarest first,
on links of one speed or, as homes have them, with a fifth of it upwards.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from psyche_chain.chain.programs import program
from psyche_chain.client.run import POLL_REMOTE_S
from psyche_train.bench.models import bench_spec
from psyche_train.bench.step import MemberBench
from psyche_train.network.gossip import IDS_PER_MESSAGE

MEMBERS = (16, 64, 256)
PARAMETERS = (1e9, 40e9)
LINKS_MBPS = (100, 500)
ROUND_S = 240.0
UPWARD_SHARE = 0.2
PAGE = Path("docs/scale.md")
MARKS = ("<!-- figures: written by `python -m benchmarks.scale --write` -->", "<!-- end of figures -->")
