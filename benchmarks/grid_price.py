"""What a grid of doubling budgets costs, and whether a shared trunk gives the same losses as runs of their own.

    python benchmarks/grid_price.py [--quick] [--json FILE] [--shape 64x2] [--steps 200] [--seeds 3]

*Price.* FLOPs of all budgets of one size trained together (``schedule=cooldown``: one trunk, a branch for each budget)
against those of the largest budget alone; and the same for a run of its own for each budget (``matched``).

*Loss.* Each budget's final loss on a branch against that of a ``matched`` run of the same budget and seed, at the same
peak rate: the mean difference over seeds, its standard error, and the standard deviation of the ``matched`` losses over
seeds. ``cooldown`` decays over its default share by 1-sqrt; ``matched`` decays linearly to the end, and once more by
1-sqrt.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from rich.console import Console

from trainlarge.config.plain import from_plain
from trainlarge.config.register import register_schema
from trainlarge.config.schedule import ScheduleConfig
from trainlarge.config.schema import StageConfig
from trainlarge.config.share import share_folder
from trainlarge.launch.engine import run_cells
from trainlarge.machine.environment import make_threads_yield
from trainlarge.sweep.compose import plain
from trainlarge.sweep.expand import read_config
from trainlarge.sweep.store import Study
from trainlarge.training.schedule import make_schedule

BASE = [
    "study=price", "tracking=none", "data.vocab_size=2048", "data.sequence_length=64", "optim.batch=2048",
    "task.mask_rate=0.4", "task.evaluation_rows=512", "schedule.warmup_steps=50",
]  # fmt: skip
DOUBLINGS = 4
SCHEDULES = {
    "cooldown": ["schedule=cooldown"],
    "matched": ["schedule=matched"],
    "matched 1-sqrt": ["schedule=matched", "schedule.decay_shape=1-sqrt"],
}

Losses = dict[tuple[str, int], list[float]]
"""Schedule and steps -> final loss of each seed, nats per token."""


def main() -> None:
    """Train the grids, print the tables and write the rows."""
    options = _options()
    budgets = [options.steps * 2**doubling for doubling in range(DOUBLINGS)]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRAINLARGE_STUDIES"] = folder
        run_cells("train", _configs(options.shape, budgets, options.seeds), Console(file=io.StringIO()))
        records: list[dict[str, Any]] = [folder.record_data() for folder in Study.named("price").folders("train")]
    rows = [_price(name, options.shape, records, budgets) for name in SCHEDULES]
    losses = _losses(records)
    device = ", ".join(sorted({record["environment"]["device_name"] for record in records}))
    rows += [_loss(name, options.shape, losses, steps, device) for name in list(SCHEDULES)[1:] for steps in budgets]
    print("\n".join(map(_told, rows)))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def _configs(shape: str, budgets: list[int], seeds: int) -> list[StageConfig]:
    width, depth = shape.split("x")
    size = [f"arch.width={width}", f"arch.depth={depth}"]
    register_schema()
    with initialize_config_dir(version_base="1.3", config_dir=str(share_folder() / "conf")):
        return [
            read_config(
                "train", plain(compose("train", [*BASE, *size, *schedule, f"seed={seed}", f"budget={steps} steps"]))
            )
            for schedule in SCHEDULES.values()
            for seed in range(seeds)
            for steps in budgets
        ]


def _schedule_of(record: dict[str, Any]) -> str:
    schedule = record["config"]["schedule"]
    suffix = " 1-sqrt" if schedule["name"] == "matched" and schedule["decay_shape"] == "1-sqrt" else ""
    return f"{schedule['name']}{suffix}"


def _losses(records: list[dict[str, Any]]) -> Losses:
    losses: Losses = {}
    for record in sorted(records, key=lambda record: record["config"]["seed"]):
        losses.setdefault((_schedule_of(record), record["step"]), []).append(record["loss"])
    return losses


def _price(name: str, shape: str, records: list[dict[str, Any]], budgets: list[int]) -> dict[str, Any]:
    """Steps that were trained for one seed: a trunk once, each branch once; every step costs the same FLOPs."""
    mine = [record for record in records if _schedule_of(record) == name and record["config"]["seed"] == 0]
    flops_a_step = mine[0]["flops"] / mine[0]["step"]
    branches = [record["step"] - record["branch_step"] for record in mine]
    trunk = max(record["branch_step"] for record in mine)
    is_shared = make_schedule(from_plain(ScheduleConfig, mine[0]["config"]["schedule"]), horizon_steps=1).shares_trunk
    steps = trunk + sum(branches) if is_shared else sum(record["step"] for record in mine)
    return {
        "name": f"price, {name}", "shape": shape, "ours": steps * flops_a_step, "theirs": budgets[-1] * flops_a_step,
        "ratio": steps / budgets[-1], "unit": "FLOPs", "device": "any",
    }  # fmt: skip


def _loss(name: str, shape: str, losses: Losses, steps: int, device: str) -> dict[str, Any]:
    """Loss of the branch against that of a run of its own, seed by seed."""
    branch, own = losses["cooldown", steps], losses[name, steps]
    differences = [mine - other for mine, other in zip(branch, own, strict=True)]
    several = len(differences) > 1
    return {
        "name": f"loss at {steps} steps, cooldown against {name}", "shape": shape,
        "ours": statistics.mean(branch), "theirs": statistics.mean(own),
        "ratio": statistics.mean(branch) / statistics.mean(own), "unit": "nats/token", "device": device,
        "difference": statistics.mean(differences),
        "standard_error": statistics.stdev(differences) / len(differences) ** 0.5 if several else None,
        "seed_spread": statistics.stdev(own) if several else None,
    }  # fmt: skip


def _told(row: dict[str, Any]) -> str:
    text = f"{row['shape']:7} {row['name']:52} {row['ours']:10.4g} : {row['theirs']:10.4g} {row['unit']:10}"
    if row.get("standard_error") is None:
        return f"{text} = {row['ratio']:.3f}"
    return f"{text} difference {row['difference']:+.3f} +- {row['standard_error']:.3f}, seeds {row['seed_spread']:.3f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed and short budgets: under a minute")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--shape", default="64x2", help="width x depth")
    parser.add_argument("--steps", type=int, default=200, help="steps of the smallest budget")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.quick:
        options.steps, options.seeds = 20, 1
    return options


if __name__ == "__main__":
    make_threads_yield()
    main()
