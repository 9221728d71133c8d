"""CPU cores and GPUs assigned to one job."""

from __future__ import annotations

from dataclasses import dataclass

from trainlarge.machine.cores import cores_here
from trainlarge.machine.environment import limit_threads, show_devices


@dataclass(frozen=True)
class Resources:
    """What one job may use of a machine."""

    cores: int
    """CPU cores, unless ``impl.threads`` says otherwise."""
    devices: tuple[str, ...] = ()
    """GPUs that its process sees; empty: those that the process sees already."""
    jobs_per_device: int = 1
    """Jobs that may share these GPUs."""

    @classmethod
    def whole_machine(cls) -> Resources:
        """All cores and GPUs that this process may use."""
        return cls(cores_here())

    def enter(self) -> None:
        """Limit this process to its GPUs, and its libraries to its cores; call before torch starts either."""
        if self.devices:
            show_devices(self.devices)
        limit_threads(self.cores)


def divide(workers: int, devices: tuple[str, ...], devices_per_job: int, jobs_per_device: int) -> list[Resources]:
    """The shares of ``workers`` jobs that run at once: every GPU gets one job before any gets a second."""
    cores = max(1, cores_here() // workers)
    groups = device_groups(devices, devices_per_job)
    if not groups:
        return [Resources(cores)] * workers
    return [Resources(cores, groups[index % len(groups)], jobs_per_device) for index in range(workers)]


def device_groups(devices: tuple[str, ...], size: int) -> list[tuple[str, ...]]:
    """Devices in groups of ``size``; what is left over belongs to none."""
    return [devices[first : first + size] for first in range(0, len(devices) - size + 1, size)]
