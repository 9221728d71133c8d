"""Seconds of a compress job over a grid of recipes, against as many pure evaluations: what compression itself costs.

    python benchmarks/compress_grid.py [--quick] [--json FILE] [--shapes 128x2,256x4] [--recipes 100] [--rounds 2]
                                       [--rows 512] [--pure 4] [--loop 10] [--memory]

All sides run in one process and take turns. *Ours* is the whole job of one checkpoint: load, prune, quantize, put the
weights in place, evaluate, pack, write file and record. *Theirs* is the evaluation of the loaded model, once for each
recipe. A ratio of 1 would mean that compressing, packing and writing cost nothing. ``digest_share`` is the part of ours
in which SHA-256 digests are made: of files, and the checksums inside packed files.

There are more rows with ``--recipes 100`` (shapes 256x4 and 768x12 where none are named), or where they are asked for.
``--pure``: so many evaluations are timed and scaled to all. ``--loop``: *theirs* is the loop that a user would write
today (``user_loop.py``), timed on so many recipes drawn from the grid, which the row's name tells, and scaled to all;
``loss_difference`` is the largest one between its losses and ours. ``--memory``: bytes that the job adds at its peak to
a process that has imported everything, measured in a child process, against the weights and the evaluation set;
``evaluation`` is the same for one evaluation alone; ``_gptq``: for a job of one GPTQ recipe, which holds statistics of
the inputs, too. Aims: 1.2, a fifth of the loop's time, 2; none for GPTQ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec
from unittest.mock import patch

from hydra import compose, initialize_config_dir
from transformers.utils.logging import disable_progress_bar

from trainlarge.compression.stage import CheckpointRun
from trainlarge.compression.stored import container
from trainlarge.config.register import register_schema
from trainlarge.config.schema import StageConfig
from trainlarge.config.share import share_folder
from trainlarge.launch.job import RunningJob
from trainlarge.launch.stage_runner import runner_named
from trainlarge.machine.device import device_name
from trainlarge.machine.environment import make_threads_yield
from trainlarge.sweep import digest
from trainlarge.sweep.compose import Composed, plain
from trainlarge.sweep.expand import read_config
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.store import Study
from trainlarge.tasks.evaluation import batch_rows

P = ParamSpec("P")
Grid = list[tuple[float, int]]

GRIDS: dict[int, Grid] = {
    1: [(0.0, 4)],
    4: [(0.0, 32), (0.0, 8), (0.6, 32), (0.6, 4)],
    24: [(sparsity, bits) for sparsity in (0.0, 0.15, 0.3, 0.45, 0.6, 0.75) for bits in (32, 8, 6, 4)],
    100: [
        (sparsity / 100, bits)
        for sparsity in (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95)
        for bits in (32, 8, 6, 5, 4)
    ],
}
"""Number of recipes -> (sparsity, bits) of each."""
SHAPES = {24: ["64x2", "128x2", "256x4"], 100: ["256x4", "768x12"]}
BASE = ["data.sequence_length=64", "optim.batch=64", "budget=2 steps", "study=bench"]
"""Steps of one row, so that the checkpoint is soon there: what it has learnt does not matter. Rows and length of the
evaluation are those of the quickstart: a longer evaluation would flatter the ratio."""
MEMORY = "--memory-of"
"""Option with which this file calls itself: the study's root, the checkpoint's id, the grid; see ``_memory_of``."""
OVERRIDES: dict[str, list[str]] = {"": [], "_gptq": ["quantize=gptq"]}
"""End of a row's name -> how its recipes are made."""


def main() -> None:
    options = _options()
    disable_progress_bar()
    rows: list[dict[str, Any]] = []
    for row in (row for shape in options.shapes for row in _measure(shape, options)):
        rows.append(row)
        unit = "MB" if row["unit"] == "bytes" else "s"
        ours, theirs = (row[side] / (1e6 if unit == "MB" else 1) for side in ("ours", "theirs"))
        text = f"{row['shape']} {row['name']}: {ours:.2f} {unit} to {theirs:.2f} {unit}, ratio {row['ratio']:.2f}"
        digests = f", digests {row['digest_share']:.2%} of the job" if "digest_share" in row else ""
        print(text + digests, flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def _measure(shape: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    width, depth = shape.split("x")
    grid = GRIDS[options.recipes]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRAINLARGE_STUDIES"] = folder
        study = Study.named("bench")
        base = [*BASE, f"task.evaluation_rows={options.rows}", f"arch.width={width}", f"arch.depth={depth}"]
        _run(study, "train", [_config("train", base)])
        [checkpoint] = study.folders("train")
        configs = _configs(checkpoint.id, grid)
        sample = random.Random(0).sample(grid, min(options.loop, len(grid)))
        pure = min(options.pure or len(grid), len(grid))
        rounds = [_one_round(study, configs, grid, sample, pure) for _ in range(options.rounds)]
        common = {"shape": shape, "recipes": len(grid), "unit": "s", "device": device_name("cpu")}
        sides = _ratio([(one["ours"], one["theirs"]) for one in rounds])
        share = statistics.median(one["digests"] / one["ours"] for one in rounds)
        yield {"name": "compress_grid", **common, **sides, "digest_share": share}
        if sample:
            name = "compress_grid_loop" + ("" if len(sample) == len(grid) else f"_of_{len(sample)}")
            difference = max(one["difference"] for one in rounds)
            sides = _ratio([(one["ours"], one["loop"]) for one in rounds])
            yield {"name": name, **common, **sides, "loss_difference": difference}
        for kind, recipes in {"": len(grid), "_gptq": 1}.items() if options.memory else ():
            told = {"name": f"compress_grid_memory{kind}", **common, "recipes": recipes, "unit": "bytes"}
            yield {**told, **_memory(folder, checkpoint.id, recipes, kind)}


def _one_round(study: Study, configs: list[StageConfig], grid: Grid, sample: Grid, pure: int) -> dict[str, float]:
    """Seconds of the whole job, of as many evaluations of its model, and of the user's loop."""
    for folder in study.folders("compress"):
        folder.clear_result()
    seconds: list[float] = []
    # A cache of its own: as in a process of its own, the digests of the checkpoint are not known yet.
    of_file = cache(_timed(digest._stamped_digest.__wrapped__, seconds))
    of_packed = _timed(container._digest, seconds)
    with patch.object(digest, "_stamped_digest", of_file), patch.object(container, "_digest", of_packed):
        started = time.perf_counter()
        run = _run(study, "compress", configs)
        ours = time.perf_counter() - started
    theirs = _seconds_of_an_evaluation(run, pure) * len(configs)
    sides = {"ours": ours, "theirs": theirs, "digests": sum(seconds)}
    return {**sides, **_loop(study, run, grid, sample)} if sample else sides


def _timed(function: Callable[P, str], seconds: list[float]) -> Callable[P, str]:
    """The same function, which adds to ``seconds`` how long each call takes."""

    def timed(*args: P.args, **kwargs: P.kwargs) -> str:
        started = time.perf_counter()
        result = function(*args, **kwargs)
        seconds.append(time.perf_counter() - started)
        return result

    return timed


def _seconds_of_an_evaluation(run: CheckpointRun, count: int) -> float:
    """Mean of ``count`` ones of the dense model, which is in place before the first."""
    with run.checkpoint.evaluated.holding(run.checkpoint.weights.as_stored()):
        started = time.perf_counter()
        for _ in range(count):
            run.checkpoint.evaluate()
        return (time.perf_counter() - started) / count


def _loop(study: Study, run: CheckpointRun, grid: Grid, sample: Grid) -> dict[str, float]:
    from user_loop import full_labels, losses

    inputs, positions, picked = run.checkpoint.evaluation_set.batch.values()
    labels = full_labels(inputs, positions, picked)
    started = time.perf_counter()
    rows = batch_rows(run.checkpoint.model, inputs.shape[1])
    found = losses(run.checkpoint.parent.folder, sample, inputs, labels, rows)
    seconds = (time.perf_counter() - started) / len(sample) * len(grid)
    records: list[dict[str, Any]] = [folder.record_data() for folder in study.folders("compress")]
    ours = {(record["sparsity"], record["bits"]): record["loss"] for record in records}
    difference = max(abs(ours[point] - loss) for point, loss in zip(sample, found, strict=True))
    return {"loop": seconds, "difference": difference}


def _memory(root: str, checkpoint: str, count: int, kind: str) -> dict[str, float]:
    """Peak of a job of ``count`` recipes, and of one evaluation alone, each of a process of its own."""
    told = {}
    for recipes in (0, count):
        command = [sys.executable, __file__, MEMORY, root, checkpoint, str(recipes), kind]
        told[recipes] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ours, least = told[count]["peak"], told[0]["least"]
    return {"ours": ours, "theirs": least, "ratio": ours / least, "evaluation": told[0]["peak"]}


def _memory_of(root: str, checkpoint: str, recipes: int, kind: str) -> None:
    """Print what a job of so many recipes adds to the memory of a process; for 0 one evaluation of the checkpoint."""
    os.environ["TRAINLARGE_STUDIES"] = root
    study = Study.named("bench")
    for folder in study.folders("compress"):
        folder.clear_result()
    configs = _configs(checkpoint, GRIDS[recipes] if recipes else [(0.0, 32)], OVERRIDES[kind])
    make_plan(study, "compress", make_cells("compress", configs))
    before = _peak_bytes()
    run = _run(study, "compress", configs) if recipes else CheckpointRun(_claimed(study, configs))
    batches = sum(tensor.nbytes for tensor in run.checkpoint.evaluation_set.batch.values())
    least = sum(tensor.nbytes for tensor in run.checkpoint.weights.tensors.values()) + batches
    print(json.dumps({"peak": _peak_bytes() - before, "least": least}))


def _peak_bytes() -> int:
    """The most memory that this process has held: VmHWM, since ru_maxrss also knows the process that started it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def _ratio(sides: list[tuple[float, float]]) -> dict[str, float]:
    """Medians over rounds; the ratio is ours to theirs of one round."""
    ours, theirs = (statistics.median(side) for side in zip(*sides, strict=True))
    return {"ours": ours, "theirs": theirs, "ratio": statistics.median(a / b for a, b in sides)}


def _run(study: Study, stage: str, configs: list[StageConfig]) -> Any:
    running = _claimed(study, configs, stage)
    with running.running():
        if stage == "train":
            return runner_named(stage).run(running)
        run = CheckpointRun(running)
        run.run()
    return run


def _claimed(study: Study, configs: list[StageConfig], stage: str = "compress") -> RunningJob:
    [job] = make_plan(study, stage, make_cells(stage, configs)).jobs
    return RunningJob.claim(study, stage, list(job.cell_ids))


def _configs(checkpoint: str, grid: Grid, overrides: Sequence[str] = ()) -> list[StageConfig]:
    base: dict[str, Any] = _composed("compress", ["study=bench", f"checkpoint={checkpoint}", *overrides])
    composed = (
        {**base, "prune": {**base["prune"], "sparsity": sparsity}, "quantize": {**base["quantize"], "bits": bits}}
        for sparsity, bits in grid
    )
    return [read_config("compress", config) for config in composed]


def _config(stage: str, overrides: list[str]) -> StageConfig:
    return read_config(stage, _composed(stage, overrides))


def _composed(stage: str, overrides: list[str]) -> Composed:
    register_schema()
    with initialize_config_dir(version_base="1.3", config_dir=str(share_folder() / "conf")):
        return plain(compose(stage, overrides))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one small shape, few rounds: under a minute")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--shapes", type=lambda text: text.split(","), help="such as 128x2,256x4")
    parser.add_argument("--recipes", type=int, choices=list(SHAPES), default=24, help="recipes of the grid")
    parser.add_argument("--rounds", type=int, help="how often every side is timed")
    parser.add_argument("--rows", type=int, default=512, help="rows of the evaluation, of 64 tokens")
    parser.add_argument("--pure", type=int, default=0, help="pure evaluations that are timed; 0: one for each recipe")
    parser.add_argument("--loop", type=int, help="recipes on which the user's loop is timed")
    parser.add_argument("--memory", action="store_true", help="measure the peak of memory, too")
    options = parser.parse_args()
    options.shapes = options.shapes or (["128x2"] if options.quick else SHAPES[options.recipes])
    options.rounds = options.rounds or {24: 3, 100: 2}[options.recipes] - options.quick
    options.loop = {24: 0, 100: 10}[options.recipes] if options.loop is None else options.loop
    options.memory = options.memory or options.recipes == 100
    return options


if __name__ == "__main__":
    make_threads_yield()
    if sys.argv[1:2] == [MEMORY]:
        _memory_of(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    else:
        main()
