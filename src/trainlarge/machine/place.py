"""What of a machine one job has: cores, and devices of its own or shared ones."""

from __future__ import annotations

import os
from dataclasses import dataclass

from trainlarge.machine.cores import cores_here
from trainlarge.machine.devices import MASK

PER_DEVICE = "TRAINLARGE_PER_DEVICE"
"""Tells a job's process how many jobs share its devices."""


@dataclass(frozen=True)
class Place:
    """Where a job runs."""

    cores: int
    """CPU cores that it may use, unless ``impl.threads`` says otherwise."""
    devices: tuple[str, ...] = ()
    """GPUs that it sees; empty: whatever its process sees already."""
    per_device: int = 1
    """Jobs that may share these devices."""

    def enter(self) -> None:
        """Make this process see its devices only; to be called before torch starts any."""
        if self.devices:
            os.environ[MASK] = ",".join(self.devices)
        os.environ[PER_DEVICE] = str(self.per_device)


def jobs_per_device() -> int:
    """How many jobs may share the devices of this process."""
    return int(os.environ.get(PER_DEVICE, 1))


def places(workers: int, devices: tuple[str, ...], devices_a_job: int, per_device: int) -> list[Place]:
    """A place for each of ``workers`` jobs at once: every device gets one job before any gets a second."""
    cores = max(1, cores_here() // workers)
    groups = device_groups(devices, devices_a_job)
    if not groups:
        return [Place(cores)] * workers
    return [Place(cores, groups[index % len(groups)], per_device) for index in range(workers)]


def device_groups(devices: tuple[str, ...], size: int) -> list[tuple[str, ...]]:
    """Devices in groups of ``size``; what is left over belongs to none."""
    return [devices[first : first + size] for first in range(0, len(devices) - size + 1, size)]
