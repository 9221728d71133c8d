"""The steady-state step times that a study has kept, found by shape and device: they turn steps into seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainlarge.config.canonical import canonical_json
from trainlarge.config.impl import ImplConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.machine.probe import PRECISIONS
from trainlarge.sweep.step_times import PROBES, read_measured
from trainlarge.sweep.store import Study
from trainlarge.tasks.step import forward_in, step_of

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


class StepTimes:
    """The kept times of a study.

    Jobs of this machine take the time that was measured on it and nothing else. Where a cluster will run them its
    devices are not known here: the newest time that fits ``impl`` is taken, and says where it was measured.
    """

    def __init__(self, study: Study, is_here: bool, cores: int) -> None:
        self._is_here, self._cores = is_here, cores
        self._precisions = study.path / PROBES / PRECISIONS
        self._probes: dict[str, list[dict[str, Any]]] = {}
        for path in sorted((study.path / PROBES).glob("*.json"), key=_changed):
            if probe := read_measured(path):
                self._keep(probe)

    def find(self, config: TrainConfig) -> StepTime | None:
        """The time of a step of a train cell's configuration; None where it was not measured."""
        measured = self._probes.get(_shape_key(config), []) if self._probes else []
        if not measured:
            return None
        impl = replace(config.impl, forward=forward_in(config))
        probes = [probe for probe in measured if self._fits(probe, impl)]
        if not probes:
            return None
        implementation = probes[-1]["key"]["implementation"]
        return StepTime(probes[-1]["step_seconds"], implementation["device_name"], implementation["threads"])

    def _keep(self, probe: dict[str, Any]) -> None:
        key = {name: value for name, value in probe["key"].items() if name not in _MADE}
        self._probes.setdefault(canonical_json(key), []).append(probe)

    def _fits(self, probe: dict[str, Any], impl: ImplConfig) -> bool:
        measured, threads = probe["key"]["implementation"], impl.threads or self._cores
        if self._is_here:
            chosen = _chosen_here(replace(impl, threads=threads), self._precisions)
            return bool({name: probe["key"].get(name) for name in _MADE} == chosen)
        return (
            measured["threads"] == threads
            and all(getattr(impl, name) in ("auto", measured[name]) for name in _NAMED)
            and measured["forward"] == impl.chosen_forward
            and measured.get("compile", "none") == impl.compile
            and measured.get("strategy", "ddp") == impl.chosen_strategy
        )


@lru_cache(maxsize=256)
def _chosen_here(impl: ImplConfig, precisions: Path) -> dict[str, Any]:
    """What ``impl`` means on this machine: the ``_MADE`` part of a probe's key."""
    # Imported only where there is a time to compare with: torch takes seconds to import.
    import torch

    from trainlarge.machine.device import choose

    return {"implementation": choose(impl, precisions).to_json(), "torch": str(torch.__version__)}


def _shape_key(config: TrainConfig) -> str:
    """As ``trainlarge.training.context`` names a shape, without how it was computed."""
    arch = {key: value for key, value in config.arch.plain.items() if key != "init_std"}
    sizes = step_of(config).sizes
    parts = config.impl.micro_batch_rows
    divided = {"micro_batch_rows": parts} if parts else {}
    return canonical_json({"arch": arch, "vocab_size": config.data.vocab_size, "step": sizes, **divided})


def _changed(path: Path) -> float:
    return path.stat().st_mtime
