"""What `psyche-localnet run` was asked to do, checked before anything starts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from localnet.run.badnet import NOTHING_BAD, Bad
from psyche_chain.cli import exit_codes
from psyche_chain.config import RunConfig
from psyche_chain.errors import ConfigError, PsycheError

MARKER = ".psyche-localnet"
MAX_CLIENTS = 64


class LaunchError(PsycheError):
    """The run could not be started, or a part of it died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """One whole run on this machine. Times in seconds."""

    config: RunConfig
    config_path: Path
    tiers: tuple[int, ...]
    """One entry per client."""
    out: Path
    """Folder of the run: wallets, chain, members, summary. Made anew by every run."""
    rpc: str | None = None
    """An existing cluster with a faucet; None: the embedded chain."""
    headless: bool = False
    kill_random: int = 0
    """Members killed at a time; 0: none."""
    every_s: float = 20.0
    seed: int = 0
    """Of the kill schedule and of the network's faults."""
    max_kills: int | None = None
    """Stop killing after so many times; None: go on until the run ends."""
    bad: Bad = NOTHING_BAD
    """What is wrong with the network between the members."""
    packets: bool = False
    """Lose real packets in network namespaces, where that is permitted."""
    exit_after_steps: int | None = None
    """Pause the run at this step and end; None: when the run finishes."""
    device: str = "cpu"
    threads: int = 1
    """CPU threads per member."""
    timeout_s: float = 3600.0

    def check(self) -> None:
        """Raise `ConfigError` for what can be known to fail."""
        self.bad.check(len(self.tiers))
        if self.packets and self.rpc is not None:
            raise ConfigError(
                "--packets: members in namespaces of their own reach no other chain than the embedded one",
                "leave out --rpc, or --packets: the fault proxy works with any chain",
                exit_codes.USAGE,
            )
        if self.kill_random > len(self.tiers):
            raise ConfigError(
                f"--kill-random {self.kill_random}: allowed are 0 to {len(self.tiers)}, the number of clients",
                exit_code=exit_codes.USAGE,
            )
        highest = self.config.spec.matformer.max_tier
        wrong = [t for t in self.tiers if not 0 <= t <= highest]
        if wrong:
            raise ConfigError(
                f"--tiers: {wrong[0]} is not a tier of this run, allowed are 0 to {highest}",
                f"change --tiers, or model.LLM.matformer.max_tier in {self.config_path}",
            )
        table = self.config.config
        if len(self.tiers) < table.init_min_clients:
            raise ConfigError(
                f"--clients {len(self.tiers)}: {self.config_path} needs config.init_min_clients = "
                f"{table.init_min_clients} members to start",
                "start more clients, or lower init_min_clients",
            )
        full = sum(t == 0 for t in self.tiers)
        if full < table.min_full_members:
            raise ConfigError(
                f"--tiers: {full} members of tier 0, {self.config_path} needs config.min_full_members = "
                f"{table.min_full_members}",
                "give more members tier 0",
            )
        if len(self.tiers) > self.config.join.capacity:
            raise ConfigError(
                f"--clients {len(self.tiers)}: the run has join.capacity = {self.config.join.capacity} slots",
                "raise join.capacity, or start fewer clients",
            )


def parse_tiers(text: str | None, clients: int) -> tuple[int, ...]:
    """`"0,1,1"` as tiers; all 0 where the text is absent.

    Raises:
        ConfigError: not numbers, or another count than `clients`.
    """
    if not 1 <= clients <= MAX_CLIENTS:
        raise ConfigError(f"--clients {clients}: allowed are 1 to {MAX_CLIENTS}", exit_code=exit_codes.USAGE)
    if text is None:
        return (0,) * clients
    try:
        tiers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f'--tiers "{text}": numbers with commas are needed, for example 0,1,1', exit_code=exit_codes.USAGE
        ) from None
    if len(tiers) != clients:
        raise ConfigError(
            f"--tiers {text} names {len(tiers)} members, --clients says {clients}",
            f"give both, for example --clients {len(tiers)} --tiers {text}",
            exit_codes.USAGE,
        )
    return tiers


def prepare_folder(out: Path) -> None:
    """Make `out` an empty folder; what an earlier run left there goes, anything else is left alone.

    Raises:
        ConfigError: the folder holds files that no run of ours made.
    """
    if out.exists():
        if out.is_symlink() or not out.is_dir():
            raise ConfigError(f"--out {out} is not a folder", "name a folder")
        if any(out.iterdir()) and not (out / MARKER).exists():
            raise ConfigError(f"--out {out} holds files of something else", "name a new or empty folder")
    try:
        if out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True)
        (out / MARKER).write_text("Made by psyche-localnet run; the next run with this --out removes it.\n")
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}", "name a folder that can be written") from None
