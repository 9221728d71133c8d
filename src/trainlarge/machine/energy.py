"""Energy of the processor, as the kernel reports it (RAPL): ``/sys/class/powercap``. Counters of whole packages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"[a-z]+-rapl:\d+")
"""Folder of a package; those below it (``intel-rapl:0:0``) are parts of it."""
_MICROJOULES = "energy_uj"


@dataclass
class Counter:
    """The counter of one package, which begins again at 0 when it is full."""

    folder: Path
    """Its folder."""
    last: int
    """What it said last, in microjoules."""
    total: int = 0
    """Microjoules since it was found."""

    def read(self) -> int:
        """Microjoules since it was found."""
        now = _number(self.folder / _MICROJOULES)
        wrap = _number(self.folder / "max_energy_range_uj") if now < self.last else 0
        self.total, self.last = self.total + now - self.last + wrap, now
        return self.total


class PackageEnergy:
    """The energy of all packages together, in joules since it was made; other programs' share is in it.

    Args:
        counters: those of the packages, one at least.
    """

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters

    def __call__(self) -> float:
        """Joules since it was made."""
        return sum(counter.read() for counter in self._counters) / 1e6


def find_energy(root: Path = POWERCAP) -> PackageEnergy | str:
    """What reads the energy of the processor here, or why nothing does.

    Args:
        root: where the kernel has the counters.
    """
    folders = [path for path in sorted(root.glob("*-rapl:*")) if _PACKAGE.fullmatch(path.name)]
    if not folders:
        return f"this machine reports no energy: no RAPL counter in {root}"
    try:
        counters = [Counter(folder, _number(folder / _MICROJOULES)) for folder in folders]
    except PermissionError:
        return f"only root may read {folders[0] / _MICROJOULES}"
    except (OSError, ValueError):
        return f"{folders[0] / _MICROJOULES} cannot be read"
    return PackageEnergy(counters)


def _number(path: Path) -> int:
    return int(path.read_text())
