"""What a user asks for when joining a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from psyche_train.evals.options import EvalOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOptions:
    """Everything that `run_client` needs to know.

    Paths are taken as they are; the state folder belongs to one wallet in one run.
    """

    run: str
    """Run id, or the address of the Run account."""
    rpc: list[str]
    """Endpoints, the preferred one first."""
    keypair: Path
    """Key file of the wallet: owns the membership and its pay."""
    state_dir: Path
    tier: int = 0
    """MatFormer tier: the FFN is held at 1 / 2**tier of its width."""
    weight: int = 1
    """Share of a round's samples, within the authorization's limit."""
    device: str = "auto"
    """"auto", "cpu", "mps", "cuda" or "cuda:N,..."; several are a rank each."""
    ranks: int | None = None
    """Processes that train as this member; None: one for each device."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of forward and backward, see `psyche_train.learner.LearnerOptions`, like the next three."""
    micro_batch_tokens: int | None = None
    compile: bool = False
    checkpoint_activations: bool = False
    listen: str = "/ip4/127.0.0.1/tcp/0"
    """Multiaddr for peers; port 0 picks one and keeps it over restarts."""
    announce: tuple[str, ...] = ()
    """Multiaddrs that others are told instead, for a member behind a forwarded port or a proxy."""
    data: Path | None = None
    """Folder with the run's data, where they are elsewhere than the run says; `Peers` data are served from it."""
    hot_key: Path | None = None
    """Key file of a key that signs duties in the wallet's place; it pays their fees."""
    threads: int | None = None
    """Threads for torch on the CPU; None leaves torch's own choice."""
    json_logs: bool = False
    poll_s: float | None = None
    """Seconds between two looks at the chain while training; None: by the distance of the endpoint."""
    linger_s: float = 60.0
    """How long a finished member stays for others that still need its blobs."""
    upload: str | None = None
    """Where agreed checkpoints are uploaded to: `hub:ORG/NAME` or an fsspec URL; only by members of tier 0."""
    checkpoint_from: str | None = None
    """Where agreed checkpoints are looked for if no member hands them over; compared with the chain's hash."""
    evals: EvalOptions | None = None
    """What to evaluate between the duties; None: nothing."""
    on_event: Callable[[dict[str, Any]], None] | None = field(default=None, repr=False)
    """Called with every event that is written to events.jsonl."""
