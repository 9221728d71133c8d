"""Which Trainers we are compared with; the measuring itself is the benchmark's own."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("throughput")


def test_the_trainer_is_compiled_on_cuda_and_elsewhere_on_request(
    throughput: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "DEVICE", "cpu")
    assert throughput.COMPILED not in throughput.chosen(is_quick=False, compile_theirs=False)
    assert throughput.COMPILED in throughput.chosen(is_quick=False, compile_theirs=True)
    monkeypatch.setattr(throughput, "DEVICE", "cuda")
    assert throughput.COMPILED in throughput.chosen(is_quick=False, compile_theirs=False)
    asked: dict[str, Any] = {}
    monkeypatch.setattr(throughput, "_trainer_turn", lambda model, **settings: asked.update(settings))
    throughput.trainer_compiled(throughput.shape_of("16x1"))
    assert asked["torch_compile"] is True
    throughput.trainer_best(throughput.shape_of("16x1"))
    assert asked["torch_compile"] is False
