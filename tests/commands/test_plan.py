"""``trainlarge plan``: it foresees what the command then does, and leaves no trace."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from trainlarge.cli import main
from trainlarge.launch.slurm import launcher as slurm_launcher
from trainlarge.sweep.store import Study

SWEEP = "# @package _global_\nsweep:\n  blocks:\n    - {arch.depth: [1, 2], budget: [20 steps, 40 steps]}\n"


def listing(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.lstat().st_mtime_ns for path in sorted(root.rglob("*"))}


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_overrides: list[str]) -> list[str]:
    (tmp_path / "sweeps" / "tiny").mkdir(parents=True)
    (tmp_path / "sweeps" / "tiny" / "train.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    return [
        "+sweeps=tiny/train",
        "impl.threads=1",
        *(text for text in tiny_overrides if not text.startswith(("arch.depth", "budget="))),
    ]


def planned(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capfd.readouterr()
    assert main(["plan", *arguments, "--json"]) == 0
    return dict(json.loads(capfd.readouterr().out))


def test_a_plan_writes_nothing_and_the_command_does_what_it_says(
    study: Study, sweep: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = listing(tmp_path)
    plan = planned(sweep, capfd)
    assert listing(tmp_path) == before
    assert (plan["cells"], plan["done"], len(plan["jobs"]), plan["total"]["seconds"]) == (4, 0, 2, None)
    assert main(["train", "-m", *sweep, "workers=2"]) == 0
    foreseen = {cell["cell"]: cell["flops"] for job in plan["jobs"] for cell in job["cells"]}
    assert foreseen == {folder.id: folder.record_data()["flops"] for folder in study.folders("train")}
    before = listing(tmp_path)
    more = planned([*sweep, "seed=0,1", "workers=2"], capfd)
    assert (more["cells"], more["done"], len(more["jobs"])) == (8, 4, 2)
    assert more["total"]["seconds"] > 0, "the seeds have one shape, which was timed on this device with as many threads"
    assert planned(sweep, capfd)["jobs"] == [] and listing(tmp_path) == before


def test_a_single_cell_is_planned_as_the_stage_would_run_it(
    study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    plan = planned(["train", *tiny_overrides], capfd)
    assert plan["cells"] == 1 and plan["jobs"][0]["steps"] == 40
    assert main(["plan", "-m", "train", *tiny_overrides, "seed=0,1,2"]) == 0
    text = capfd.readouterr().out
    assert "3 cells, 0 done, 3 jobs" in text and "not measured" in text
    assert "each job: modern, 40 steps\n" in text and "16x1, seed 2 " in text


def test_what_is_not_known_yet_and_what_is_all_warm_up_is_said(
    study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "-m", "train", *tiny_overrides, "data.vocab_size=317", "budget=[2 epochs,1 h 30 min]"]) == 0
    text = capfd.readouterr().out
    assert "2 epochs" in text and "90 min" in text and "in epochs become steps when the data is prepared" in text
    assert main(["plan", "train", *tiny_overrides, "budget=4 steps"]) == 0
    text = capfd.readouterr().out
    assert "train: 1 cell, 0 done, 1 job to run" in text and "all steps of 1 cell lie inside the warm-up" in text


def test_the_array_of_slurm_is_shown(
    study: Study, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")
    monkeypatch.setattr(slurm_launcher, "FORECAST_TIMEOUT_SECONDS", 0.5)
    cluster = ["launcher=slurm", "launcher.array_parallelism=2", "launcher.partition=long", "launcher.max_array_size=4"]
    plan = planned(["train", *tiny_overrides, *cluster, "seed=0,1,2,3,4"], capfd)
    assert [array[:2] for array in plan["arrays"]] == [["sbatch", "--array=0-3%2"], ["sbatch", "--array=0-0%2"]]
    assert all("--partition=long" in array for array in plan["arrays"])
    assert plan["on_their_way"] is None
    assert main(["plan", "train", *tiny_overrides, *cluster]) == 0
    text = capfd.readouterr().out
    assert "no SLURM answers here" in text and "sbatch --array=0-0%2 --partition=long" in text


def test_no_array_is_larger_than_the_cluster_allows(
    study: Study,
    tiny_overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho 'MaxArraySize            = 2'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    plan = planned(["train", *tiny_overrides, "launcher=slurm", "seed=0,1,2"], capfd)
    assert [array[1] for array in plan["arrays"]] == ["--array=0-1", "--array=0-0"] and plan["on_their_way"] == 0


BAD = [
    (["plan"], "plan=nothing", "+sweeps=STUDY/FILE"),
    (["plan", "nothing"], "study=nothing", "a folder of sweeps/ with train.yaml"),
    (["plan", "train", "arch.wdth=3"], "arch.wdth=3", "did you mean width?"),
    (["plan", "train", "budget=3"], "budget=3", "with its unit"),
    (["plan", "+sweeps=nowhere/train"], "+sweeps=nowhere/train", "STUDY/train.yaml"),
    (["plan", "compress", "checkpoint=every"], "checkpoint=every", "finished train cells"),
    (["plan", "train", "launcher=slurm", "--calibrate"], "--calibrate=train, slurm", "jobs run on this machine"),
]


@pytest.mark.parametrize(("arguments", "named", "allowed"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], named: str, allowed: str, study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    [line] = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and named in line and allowed in line
    assert not study.path.exists()
