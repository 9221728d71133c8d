"""Launchers by name."""

from __future__ import annotations

from collections import Counter
from pkgutil import resolve_name
from typing import cast

from trainlarge.config.launcher import LAUNCHERS
from trainlarge.launch.launcher import JobState, Launcher
from trainlarge.sweep.store import Study


def launcher_class(name: str) -> type[Launcher]:
    """The launcher of that name."""
    return cast(type[Launcher], resolve_name(LAUNCHERS[name].run_by))


def submitted_jobs(study: Study) -> dict[str, Counter[JobState]]:
    """Launcher -> how many of its submitted jobs are in which state, for launchers that leave jobs to others."""
    counted = {name: launcher_class(name).jobs(study) for name in LAUNCHERS}
    return {name: jobs for name, jobs in counted.items() if jobs is not None}
