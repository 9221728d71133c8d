"""How much memory a compress job takes; the measuring itself is the benchmark's own."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from trainlarge.sweep.store import Study

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_large_job_takes_at_most_twice_its_weights_and_evaluation_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path))
    benchmark = import_module("compress_grid")
    study = Study.named("bench")
    shape = ["task.evaluation_rows=64", "arch.width=768", "arch.depth=12"]
    benchmark._run(study, "train", [benchmark._config("train", [*benchmark.BASE, *shape])])
    [checkpoint] = study.folders("train")
    told = benchmark._memory(str(tmp_path), checkpoint.id, 4, "")
    assert told["theirs"] > 2**28, "of a model that is large"
    assert told["evaluation"] <= told["ours"] < 2 * told["theirs"]
