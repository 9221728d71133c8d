"""What the sweep engine itself costs: for each cell of a large study, and for each cell that does nothing.

    python benchmarks/sweep_overhead.py [--quick] [--json FILE] [--cells 100,1000,10000] [--rounds 3]

*Commands.* ``expand`` composes a sweep file as ``trainlarge train -m`` does and resolves its cells, ``freeze`` writes
them to a study and makes the jobs, ``plan`` foresees them with numbers, ``again`` is the freeze of a repeated command,
``all_done`` that of one whose cells are all done, each record and curve compared with its digest;
``status`` and ``load_study`` then read the study when all its cells are done, with records and curves as long as real
ones, and ``report`` writes its page. Seconds are the median over rounds, each in a study of its own; a cell must not
cost more where there are more.

*Empty cells.* A stage that does nothing runs through the local launcher: real processes, leases, states and records.
``first`` is a sweep of one cell, which in the first round starts the fork server; ``seconds_a_cell`` is the time of a
whole sweep after it, for each of its cells: one cell a job, and ten cells a job.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from rich.console import Console

from trainlarge.commands.estimate import estimate
from trainlarge.commands.hydra_entry import act_on_cells
from trainlarge.commands.status import read_state
from trainlarge.commands.step_times import StepTimes
from trainlarge.config.group import Plain
from trainlarge.config.impl import ImplConfig
from trainlarge.config.plain import to_plain
from trainlarge.config.schema import CONFIGS, CompressConfig, StageConfig
from trainlarge.launch.engine import run_cells
from trainlarge.launch.job import RunningJob
from trainlarge.launch.stage_runner import RUNNERS, StageRunner
from trainlarge.machine.resources import Resources
from trainlarge.results.frames import load_study
from trainlarge.results.report.page import write_report
from trainlarge.sweep import cell as cells_module
from trainlarge.sweep import stages
from trainlarge.sweep.causes import Causes
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.plan import Plan, look_ahead, make_cells, make_plan
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.proof import FILES, result_digests
from trainlarge.sweep.records import TextRow, TrainRecord
from trainlarge.sweep.sealed import write_sealed
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study

BASE = ["study=bench", "data.vocab_size=2048", "data.sequence_length=64"]
NOTHING = "nothing"
CURVE_ROWS = 8
TEXTS = [
    TextRow(text="", use=use, documents=1000, tokens=10**6, blank_rows=0, replaced_rows=0, long_documents=0).to_json()
    for use in ("train", "validation")
]
LIMITS = {"prepare": 20.0, "status": 3.0, "load_study": 3.0, "report": 20.0, "empty_cell": 0.15}
"""Seconds that are allowed, for 10,000 cells; ``prepare`` is expand, freeze and plan together."""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        rows = [_commands(folder, count, options.rounds) for count in options.cells]
        rows += [_empty_cells(folder, jobs, cells_a_job, options.rounds) for jobs, cells_a_job in options.empty]
    for row in rows:
        print(" ".join(f"{key}={_written(value)}" for key, value in row.items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"limits": LIMITS, "rows": rows}, indent=1) + "\n")


def _commands(folder: str, count: int, rounds: int) -> dict[str, Any]:
    """Median seconds of each command on a study of so many cells, and of one cell."""
    found = [_one_round(folder, count) for _ in range(rounds)]
    seconds = {name: statistics.median(one[name] for one in found) for name in found[0]}
    seconds["prepare"] = seconds["expand"] + seconds["freeze"] + seconds["plan"]
    return {
        "name": "commands", "cells": count, **seconds,
        **{f"{name}_ms_a_cell": 1000 * seconds[name] / count for name in ("prepare", "status", "load_study", "report")},
    }  # fmt: skip


def _one_round(folder: str, count: int) -> dict[str, float]:
    seconds: dict[str, float] = {}
    _new_studies_root(folder)
    study = Study.named("bench")
    cells = _timed(seconds, "expand", lambda: make_cells("train", _expanded(count)))
    plan = _timed(seconds, "freeze", lambda: make_plan(study, "train", cells))
    _timed(seconds, "plan", lambda: _foresee(study, cells))
    _timed(seconds, "again", lambda: make_plan(study, "train", cells))
    _finish_all(study, plan)
    _timed(seconds, "all_done", lambda: make_plan(study, "train", cells))
    _timed(seconds, "status", lambda: read_state(study))
    frames = _timed(seconds, "load_study", lambda: load_study(study))
    _timed(seconds, "report", lambda: write_report(study))
    if len(frames.cells) != count:
        raise SystemExit(f"{len(frames.cells)} cells instead of {count}")
    return seconds


def _foresee(study: Study, cells: list[Cell]) -> Any:
    plan = look_ahead(study, "train", cells)
    return estimate(study, plan, StepTimes(study, is_here=True, resources=Resources(1)), at_once=1)


def _expanded(count: int) -> list[StageConfig]:
    """A sweep of ``count`` cells, a multiple of 4: two widths, two budgets that share a trunk, and seeds."""
    blocks = [{"arch.width": [64, 128], "budget": ["40 steps", "80 steps"], "seed": list(range(count // 4))}]
    sweep = {"blocks": blocks, "exclude": ["arch.width == 64 and seed < 0"]}
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        file = Path("sweeps/bench/train.yaml")
        file.parent.mkdir(parents=True)
        file.write_text("# @package _global_\n" + json.dumps({"sweep": sweep}))
        [configs] = act_on_cells("train", ["-m", "+sweeps=bench/train", *BASE], lambda _stage, found: found)
    return configs


def _finish_all(study: Study, plan: Plan) -> None:
    """Give every cell the files of a finished one."""
    for number, cell in enumerate(plan.cells):
        folder = study.folder("train", cell.id)
        curve = [_row(number, 25 * 2**position) for position in range(CURVE_ROWS)]
        (folder.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve))
        record = {**_record(cell, curve[-1]), FILES: result_digests(folder.path)}
        write_sealed(folder.record_path, record, durable=False)
        (folder.path / "status.json").write_text(json.dumps(Status(State.DONE, attempts=1).to_json(), indent=1))


def _row(number: int, step: int) -> dict[str, Any]:
    loss, seconds = 2.0 + 10 / step + 1e-5 * number, 0.0123 * step
    return {
        "step": step, "tokens": 2048 * step, "flops": 1_234_567_890 * step, "train_seconds": seconds,
        "model_seconds": seconds, "wall_seconds": 1.1 * seconds, "train_loss": loss, "loss": loss, "accuracy": 0.4,
        "lr": 3e-3, "part": "trunk",
    }  # fmt: skip


def _record(cell: Cell, last: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1, "stage": "train", "cell": cell.id, "study": "bench", "diverged": False, **last, "perplexity": 9.9,
        "branch_step": 80, "step_seconds": 0.0123, "parameters": 180_000, "embedding_parameters": 131_072,
        "non_embedding_parameters": 48_928,
        "data": {"fingerprint": "0" * 16, "evaluation_fingerprint": "1" * 16, "train_tokens": 10**6,
                 "validation_tokens": 10**5, "epochs": 0.1, "texts": TEXTS},
        "environment": {"device": "cpu", "device_name": "made", "precision": "fp32", "attention": "eager",
                        "forward": "fast", "threads": 2, "shared": False, "software": {"python": "3", "torch": "2"}},
        "provenance": {"commit": "0" * 40, "dirty": False, "host": "made", "command": "trainlarge train",
                       "started": 1.7e9, "ended": 1.7e9 + 60},
        "config": to_plain(cell.config),
    }  # fmt: skip


class _EmptyStage:
    """A stage that does nothing: what is left is the engine."""

    def resolve(self, config: CompressConfig, planned: Planned = NOTHING_PLANNED) -> CompressConfig:
        return config

    def shared_work(self, config: CompressConfig) -> Plain:
        return config.checkpoint

    def cost(self, config: CompressConfig, planned: Planned = NOTHING_PLANNED) -> float:
        return 1.0

    def look(self, study: Study, cells: Sequence[Cell], causes: Causes, planned: Planned) -> None: ...

    def to_prepare(self, cells: list[Cell]) -> list[Cell]:
        return []

    def prepare(self, study: Study, cells: list[Cell], resources: Resources) -> None: ...

    def run(self, job: RunningJob) -> None:
        for cell in job.cells:
            job.finish(cell.id, TrainRecord.from_json(_record(cell, _row(0, 1))))


def _register_empty_stage() -> None:
    """Also in the fork server, which imports this file because it is named as the module of a stage."""
    stages._MODULES[NOTHING] = RUNNERS[NOTHING] = __spec__.name if __spec__ else Path(__file__).stem
    cells_module.SCHEMA_VERSIONS[NOTHING] = 1
    CONFIGS[NOTHING] = CompressConfig


STAGE: StageRunner[CompressConfig] = _EmptyStage()
_register_empty_stage()


def _empty_cells(folder: str, jobs: int, cells_a_job: int, rounds: int) -> dict[str, Any]:
    """Median seconds that the engine adds to each cell after the first."""
    found = [_empty_round(folder, jobs, cells_a_job) for _ in range(rounds)]
    seconds = statistics.median(whole for _, whole in found)
    return {
        "name": "empty_cell", "jobs": jobs, "cells_a_job": cells_a_job, "first": max(one for one, _ in found),
        "seconds": seconds, "seconds_a_cell": seconds / (jobs * cells_a_job),
    }  # fmt: skip


def _empty_round(folder: str, jobs: int, cells_a_job: int) -> tuple[float, float]:
    """Seconds of a sweep of one empty cell, and of a sweep of all of them."""
    _new_studies_root(folder)
    seconds: dict[str, float] = {}
    _timed(seconds, "first", lambda: run_cells(NOTHING, [_empty_config("one", 0, 0)], _quiet()))
    configs: list[StageConfig] = [_empty_config("all", job, seed) for job in range(jobs) for seed in range(cells_a_job)]
    _timed(seconds, "all", lambda: run_cells(NOTHING, configs, _quiet()))
    return seconds["first"], seconds["all"]


def _empty_config(study: str, job: int, seed: int) -> CompressConfig:
    impl = ImplConfig(device="cpu", threads=1)
    return CompressConfig(study=study, seed=seed, checkpoint=f"{job:012d}", workers=1, impl=impl)


def _timed(seconds: dict[str, float], name: str, action: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = action()
    seconds[name] = time.perf_counter() - started
    return result


def _new_studies_root(folder: str) -> None:
    """A place of its own in ``folder`` for what follows; it stays until the end.

    A file system may not give out again, for minutes, the numbers of files that were deleted (ext4 does not), and then
    looks past each of them whenever it makes one: what a round deletes, the next would pay for.
    """
    os.environ["TRAINLARGE_STUDIES"] = tempfile.mkdtemp(dir=folder)


def _quiet() -> Console:
    return Console(file=io.StringIO())


def _written(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="up to 1,000 cells, two rounds: under a minute")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--cells", type=lambda text: [int(part) for part in text.split(",")], help="such as 100,1000")
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    options.cells = options.cells or ([100, 1000] if options.quick else [100, 1000, 10_000])
    options.rounds = options.rounds or (2 if options.quick else 3)
    options.empty = [(8, 1), (4, 10)] if options.quick else [(20, 1), (10, 10)]
    return options


if __name__ == "__main__":
    # The fork server finds this file by its name only here, and imports it once instead of in every process.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    main()
