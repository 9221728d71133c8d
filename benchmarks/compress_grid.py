"""Seconds of a compress job over a grid of recipes, against as many pure evaluations: what compression itself costs.

    python benchmarks/compress_grid.py [--quick] [--json FILE] [--shapes 128x2,256x4]

Both sides run in one process and take turns. *Ours* is the whole job of one checkpoint: load, prune, quantize, put the
weights in place, evaluate, pack, write file and record. *Theirs* is the evaluation of the loaded model, once for each
recipe. A ratio of 1 would mean that compressing, packing and writing cost nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from trainlarge.compression.stage import CheckpointRun
from trainlarge.config.register import register_schema
from trainlarge.config.share import share_folder
from trainlarge.launch.job import RunningJob
from trainlarge.launch.threads import make_threads_yield
from trainlarge.sweep.compose import plain
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.stages import runner
from trainlarge.sweep.store import Study
from trainlarge.training.device import device_name

SPARSITIES = [0.0, 0.15, 0.3, 0.45, 0.6, 0.75]
BITS = [32, 8, 6, 4]
BASE = ["data.sequence_length=64", "task.evaluation_rows=512", "budget=2 steps", "study=bench"]
"""Rows and length of the evaluation are those of the quickstart: a longer evaluation would flatter the ratio."""


def main() -> None:
    options = _options()
    rows = [_measure(shape, options.rounds) for shape in options.shapes]
    for row in rows:
        print(
            f"{row['shape']}: job {row['ours']:.2f} s, evaluation alone {row['theirs']:.2f} s, ratio {row['ratio']:.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def _measure(shape: str, rounds: int) -> dict[str, Any]:
    width, depth = shape.split("x")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRAINLARGE_STUDIES"] = folder
        study = Study.named("bench")
        _run(study, "train", [_config("train", [*BASE, f"arch.width={width}", f"arch.depth={depth}"])])
        [checkpoint] = study.folders("train")
        grid = [(sparsity, bits) for sparsity in SPARSITIES for bits in BITS]
        configs = [
            _config(
                "compress", ["study=bench", f"checkpoint={checkpoint.id}", f"prune.sparsity={s}", f"quantize.bits={b}"]
            )
            for s, b in grid
        ]
        ours, theirs = zip(*(_one_round(study, configs) for _ in range(rounds)), strict=True)
    mine, other = statistics.median(ours), statistics.median(theirs)
    return {
        "name": "compress_grid", "shape": shape, "recipes": len(grid), "ours": mine, "theirs": other,
        "ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "unit": "s", "device": device_name("cpu"),
    }  # fmt: skip


def _one_round(study: Study, configs: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds of the whole job, and of as many evaluations of its model."""
    for folder in study.folders("compress"):
        folder.clear_result()
    started = time.perf_counter()
    run = _run(study, "compress", configs)
    middle = time.perf_counter()
    for _ in configs:
        run._evaluate()
    return middle - started, time.perf_counter() - middle


def _run(study: Study, stage: str, configs: list[dict[str, Any]]) -> Any:
    plan = make_plan(study, stage, make_cells(stage, configs))
    [job] = plan.jobs
    running = RunningJob.claim(study, stage, list(job.cell_ids))
    with running.running():
        if stage == "train":
            return runner(stage).run(running)
        run = CheckpointRun(running)
        run.run()
    return run


def _config(stage: str, overrides: list[str]) -> dict[str, Any]:
    register_schema()
    with initialize_config_dir(version_base="1.3", config_dir=str(share_folder() / "conf")):
        return plain(compose(stage, overrides))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one small shape, two rounds: under a minute")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--shapes", type=lambda text: text.split(","), help="such as 128x2,256x4")
    options = parser.parse_args()
    options.shapes = options.shapes or (["128x2"] if options.quick else ["64x2", "128x2", "256x4"])
    options.rounds = 2 if options.quick else 3
    return options


if __name__ == "__main__":
    make_threads_yield()
    main()
