"""Train cells before they run: what a configuration means in full, and which cells share work. Nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from trainlarge.config.budget import SECONDS, parse_budget
from trainlarge.config.impl import check_impl
from trainlarge.config.task import task_config
from trainlarge.data.fingerprint import resolved_data
from trainlarge.data.tokenizer import check_vocab_size
from trainlarge.errors import UserError
from trainlarge.models.counts import parameter_counts
from trainlarge.models.families import FAMILIES
from trainlarge.models.family import Head
from trainlarge.models.shape import Shape, check_sequence_length, head_of, shape_of
from trainlarge.sweep.cell import ID_LENGTH, Cell, canonical_json
from trainlarge.tasks.step import step_of, steps_in
from trainlarge.training.rules import check_rules, init_std, peak_lr
from trainlarge.training.run_length import RUN_LENGTHS
from trainlarge.training.schedule import make_schedule

OPTIMIZERS = ("adamw",)
TYPICAL_FLOPS_PER_SECOND = 1e11
"""Only to compare a budget in seconds with one in FLOPs when jobs are put in order."""
MOST_PREPARED = 200_000_000
"""Parameters of all shapes that are timed in turns: their states are in memory at once."""


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """The full configuration of a train cell: every rule applied, the data's fingerprint filled in.

    Raises:
        UserError: for anything that cannot be trained, naming the key.
    """
    _check_task(config)
    check_impl(config["impl"])
    resolved = {**config, "arch": _arch(config), "budget": str(parse_budget(config["budget"]))}
    resolved["optim"] = _optim(config["optim"], config["arch"]["width"])
    _check_schedule(resolved)
    _check_clock(resolved)
    _check_devices(resolved)
    _check_data(config["data"])
    resolved["data"] = resolved_data(config["data"])
    return resolved


def shared_work(config: dict[str, Any]) -> Any:
    """All that identifies the cell but the budget, where the schedule lets budgets share a trunk."""
    identity = dict(Cell("train", config).identity["config"])
    if make_schedule(config["schedule"], horizon_steps=1).shares_trunk:
        del identity["budget"]
    return identity


def trunk_id(config: dict[str, Any]) -> str:
    """Names the trunk that a train cell shares: first 12 hex digits of SHA-256 over its shared work."""
    return hashlib.sha256(canonical_json(shared_work(config)).encode()).hexdigest()[:ID_LENGTH]


def cost(config: dict[str, Any]) -> float:
    """FLOPs of the budget, roughly."""
    budget, step = parse_budget(config["budget"]), step_of(config)
    if budget.unit == SECONDS:
        return budget.value * TYPICAL_FLOPS_PER_SECOND
    return float(steps_in(budget, step, None) * step.flops)


def to_prepare(cells: list[Cell]) -> list[Cell]:
    """Cells whose shapes are timed in turns before any job starts: one for each, where budgets are in seconds.

    None where there is but one shape, which its own job times, or where all of them at once would take much memory.
    """
    shapes: dict[str, Cell] = {}
    for cell in cells:
        if counts_seconds(cell.config) and cell.config["impl"]["devices"] == 1:
            shapes[canonical_json(timed_part(cell.config))] = cell
    parameters = sum(parameter_counts(shape_of(cell.config), head_of(cell.config)).total for cell in shapes.values())
    return list(shapes.values()) if len(shapes) > 1 and parameters <= MOST_PREPARED else []


def counts_seconds(config: dict[str, Any]) -> bool:
    """Whether steps or rates of a train cell depend on the step time."""
    texts = (config["budget"], config["schedule"]["horizon"])
    return config["clock"] == "modelled" and any(text and parse_budget(text).unit == SECONDS for text in texts)


def timed_part(config: dict[str, Any]) -> dict[str, Any]:
    """What the time of a step depends on, and more."""
    return {key: config[key] for key in ("arch", "data", "optim", "task", "impl")}


def _check_task(config: dict[str, Any]) -> None:
    task = task_config(config["task"])
    task.check()
    task.check_data(config["data"])
    if config["seed"] < 0:
        raise UserError("seed", config["seed"], "a whole number of at least 0")
    if config["checkpoint"] is not None:
        raise UserError("checkpoint", config["checkpoint"], "null in the train stage: training starts from new weights")


def _check_data(data: dict[str, Any]) -> None:
    check_vocab_size(data["vocab_size"])
    if not 0 < data["fraction"] <= 1:
        raise UserError("data.fraction", data["fraction"], "a number above 0, at most 1")


def _arch(config: dict[str, Any]) -> dict[str, Any]:
    arch, length = dict(config["arch"]), config["data"]["sequence_length"]
    if length < 2:
        raise UserError("data.sequence_length", length, "a whole number of at least 2")
    if arch["name"] not in FAMILIES:
        raise UserError("arch", arch["name"], ", ".join(FAMILIES))
    arch["positions"] = arch["positions"] or length + FAMILIES[arch["name"]].first_position
    shape = shape_of({**config, "arch": arch})
    _check_head(shape, head_of(config), config["impl"])
    check_sequence_length(shape, length)
    return {**arch, "heads": shape.heads, "init_std": _given("arch.init_std", arch, lambda: init_std(shape.width))}


def _check_head(shape: Shape, head: Head, impl: dict[str, Any]) -> None:
    if shape.family.head(head).fast is None and impl["forward"] == "fast":
        allowed = f"auto or library: arch.name={shape.name} has no fast forward pass for this task"
        raise UserError("impl.forward", "fast", allowed)


def _optim(optim: dict[str, Any], width: int) -> dict[str, Any]:
    if optim["name"] not in OPTIMIZERS:
        raise UserError("optim", optim["name"], ", ".join(OPTIMIZERS))
    for key in ("lr", "base_width", "base_batch", "eps"):
        if not optim[key] > 0:
            raise UserError(f"optim.{key}", optim[key], "a positive number")
    for key in ("weight_decay", "clip"):
        if optim[key] < 0:
            raise UserError(f"optim.{key}", optim[key], "0 or a positive number")
    for key in ("beta1", "beta2"):
        if not 0 <= optim[key] < 1:
            raise UserError(f"optim.{key}", optim[key], "a number in [0, 1)")
    check_rules(optim)
    return {**optim, "peak_lr": _given("optim.peak_lr", optim, lambda: peak_lr(optim, width))}


def _given(key: str, group: dict[str, Any], rule: Callable[[], float]) -> float:
    """The value that the user gave, a positive number, or that of the rule."""
    value: float | None = group[key.rpartition(".")[2]]
    if value is not None and not value > 0:
        raise UserError(key, value, "a positive number, or null for that of the rule")
    return rule() if value is None else value


def _check_schedule(config: dict[str, Any]) -> None:
    step, budget, horizon = step_of(config), parse_budget(config["budget"]), config["schedule"]["horizon"]
    if budget.unit != SECONDS:
        steps_in(budget, step, None)
    make_schedule(config["schedule"], horizon_steps=None if horizon is None else 1)
    if (
        horizon is not None
        and config["schedule"]["name"] == "fixed"
        and parse_budget(horizon, "schedule.horizon") < budget
    ):
        raise UserError("schedule.horizon", horizon, f"at least the budget, {budget}")


def _check_clock(config: dict[str, Any]) -> None:
    budget, clock = parse_budget(config["budget"]), config["clock"]
    if clock not in RUN_LENGTHS:
        raise UserError("clock", clock, ", ".join(RUN_LENGTHS))
    if clock == "real" and budget.unit != SECONDS:
        raise UserError("clock", clock, f"modelled with budget={budget}; the real clock counts a budget in seconds")
    if clock == "real" and config["impl"]["devices"] > 1:
        raise UserError("impl.devices", config["impl"]["devices"], "1 with clock=real: each device has its own clock")


def _check_devices(config: dict[str, Any]) -> None:
    rows, devices = step_of(config).rows, config["impl"]["devices"]
    if rows % devices:
        raise UserError(
            "impl.devices", devices, f"a divisor of the {rows} rows of optim.batch={config['optim']['batch']}"
        )
