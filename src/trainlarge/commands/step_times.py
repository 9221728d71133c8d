"""The steady-state step times that a study has kept, found by shape and device: they turn steps into seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from trainlarge.config import typed_json
from trainlarge.config.canonical import canonical_json
from trainlarge.config.group import Plain
from trainlarge.config.impl import ImplConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.machine.implementation import Implementation
from trainlarge.machine.probe import PRECISIONS
from trainlarge.machine.resources import Resources
from trainlarge.sweep.step_times import PROBES, read_measured
from trainlarge.sweep.store import Study
from trainlarge.tasks.step import impl_in, step_of, timed_step

_MADE = ("implementation", "torch")
"""Parts of a probe's key that say how a step was computed; the others say which step."""
_NAMED = ("device", "precision", "attention")


@dataclass(frozen=True)
class StepTime:
    """A measured step."""

    seconds: float
    """Steady-state step time."""
    device_name: str
    """Where it was measured."""
    threads: int
    """CPU threads."""


@dataclass(frozen=True)
class _Probe:
    """What is read of a file of ``probes/``."""

    key: Mapping[str, Plain]
    """How a step was computed, and which."""
    step_seconds: float
    """Steady-state step time."""

    def __post_init__(self) -> None:
        typed_json.read(Implementation, self.key.get("implementation"), "key.implementation")

    @cached_property
    def implementation(self) -> Implementation:
        """How it was computed."""
        return typed_json.read(Implementation, self.key["implementation"])

    @property
    def step(self) -> str:
        """Names the step, however it was computed."""
        return canonical_json({name: value for name, value in self.key.items() if name not in _MADE})


class StepTimes:
    """The kept times of a study.

    Jobs of this machine take the time that was measured on it and nothing else. Where a cluster will run them its
    devices are not known here: the newest time that fits ``impl`` is taken, and says where it was measured.
    """

    def __init__(self, study: Study, is_here: bool, resources: Resources) -> None:
        self._is_here, self._resources = is_here, resources
        self._precisions = study.path / PROBES / PRECISIONS
        self._probes: dict[str, list[_Probe]] = {}
        for path in sorted((study.path / PROBES).glob("*.json"), key=lambda path: path.stat().st_mtime):
            probe = read_measured(_Probe, path)
            if probe is not None:
                self._probes.setdefault(probe.step, []).append(probe)

    def find(self, config: TrainConfig) -> StepTime | None:
        """The time of a step of a train cell's configuration; None where it was not measured."""
        if not self._probes:
            return None
        step = canonical_json(timed_step(config, self._resources.jobs_per_device))
        impl = impl_in(config)
        probes = [probe for probe in self._probes.get(step, []) if self._fits(probe, impl)]
        if not probes:
            return None
        implementation = probes[-1].implementation
        return StepTime(probes[-1].step_seconds, implementation.device_name, implementation.threads)

    def seconds_by_flops(self, config: TrainConfig, other: TrainConfig) -> float | None:
        """About how long a step of ``config`` takes: by the time of a step of ``other`` and the FLOPs of both.

        None where that was not measured.
        """
        timed = self.find(other)
        return timed.seconds * step_of(config).flops / step_of(other).flops if timed else None

    def _fits(self, probe: _Probe, impl: ImplConfig) -> bool:
        measured, threads = probe.implementation, impl.threads or self._resources.cores
        if self._is_here:
            chosen = _chosen_here(replace(impl, threads=threads), self._precisions)
            return {name: probe.key.get(name) for name in _MADE} == chosen
        return (
            measured.threads == threads
            and all(getattr(impl, name) in ("auto", getattr(measured, name)) for name in _NAMED)
            and measured.forward == impl.chosen_forward
            and measured.compile == impl.compile
            and measured.strategy == impl.chosen_strategy
        )


@lru_cache(maxsize=256)
def _chosen_here(impl: ImplConfig, precisions: Path) -> dict[str, Plain]:
    """What ``impl`` means on this machine: the ``_MADE`` part of a probe's key."""
    # Imported only where there is a time to compare with: torch takes seconds to import.
    import torch

    from trainlarge.machine.device import choose

    return {"implementation": choose(impl, precisions).to_json(), "torch": str(torch.__version__)}
