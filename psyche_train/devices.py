"""Names of devices: what a member's `--device` may say, and whether it is there."""

from __future__ import annotations

import torch


class DeviceError(ValueError):
    """A device that is not on this machine, or a name that means none."""


def choose_devices(name: str) -> list[torch.device]:
    """Turn "auto", "cpu", "mps", "cuda" or "cuda:N,..." into devices that are there, in the order given.

    Raises:
        DeviceError: there is no such device; says which ones there are.
    """
    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    there = [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
    if name == "auto":
        return [torch.device(there[0])]
    wanted = ["cuda:0"] if name == "cuda" else [name]
    if name.startswith("cuda:"):
        wanted = [f"cuda:{part.strip()}" for part in name.removeprefix("cuda:").split(",")]
    missing = [device for device in wanted if device not in there]
    if missing:
        raise DeviceError(
            f"device {', '.join(missing)!r} is not on this machine: choose auto, {', '.join(reversed(there))}"
        )
    if len(set(wanted)) < len(wanted):
        raise DeviceError(f"device {name!r} names one device twice")
    return [torch.device(device) for device in wanted]


def choose_device(name: str) -> torch.device:
    """Like `choose_devices`, for exactly one device."""
    devices = choose_devices(name)
    if len(devices) > 1:
        raise DeviceError(f"device {name!r} names {len(devices)} devices where one is used")
    return devices[0]


def rank_devices(name: str, ranks: int | None) -> list[torch.device]:
    """The device of each process of a member.

    Args:
        name: as `choose_devices` takes it.
        ranks: processes; None: one for each device that `name` says.

    Raises:
        DeviceError: there is no such device, or it cannot have so many ranks.
    """
    devices = choose_devices(name)
    if ranks is None or ranks == len(devices):
        return devices
    if not 1 <= ranks <= 64:
        raise DeviceError(f"ranks = {ranks}, allowed 1..64")
    if len(devices) == 1 and devices[0].type == "cpu":
        return devices * ranks
    raise DeviceError(
        f"{ranks} ranks on {name!r}: name as many CUDA devices (cuda:0,1), or use the cpu, which takes several"
    )
