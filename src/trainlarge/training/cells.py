"""Train cells before they run: what a configuration means in full, and which cells share work. No heavy imports."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from trainlarge.config.arch import ArchConfig
from trainlarge.config.budget import EPOCHS, FLOPS, SECONDS, STEPS, Budget, kept_form, parse_budget
from trainlarge.config.canonical import canonical_json
from trainlarge.config.group import Plain, with_values
from trainlarge.config.optim import OptimConfig
from trainlarge.config.plain import identity_of
from trainlarge.config.schedule import ScheduleConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.data.fingerprint import resolved_data
from trainlarge.errors import UserError, shown
from trainlarge.launch.job import RunningJob
from trainlarge.launch.stage_runner import StageRunner
from trainlarge.machine.resources import Resources
from trainlarge.models.counts import parameter_counts
from trainlarge.models.families import FAMILIES
from trainlarge.models.library import LIBRARY, has_eager_alone
from trainlarge.models.shape import Shape, check_sequence_length, head_of, shape_of
from trainlarge.sweep.causes import Causes
from trainlarge.sweep.cell import ID_LENGTH, Cell
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.store import Study
from trainlarge.tasks.data_check import Use, check_use
from trainlarge.tasks.step import UNKNOWN_PACE, Step, step_of, steps_in
from trainlarge.training.rules import init_std, peak_lr
from trainlarge.training.schedule import make_schedule
from trainlarge.training.start import check_start, find_start, started

TYPICAL_FLOPS_PER_SECOND = 1e11
"""Only to compare a budget in seconds with one in FLOPs when jobs are put in order."""
TYPICAL_EPOCH_TOKENS = 1e7
"""The same for a budget in epochs: data may not be prepared yet."""
MOST_PREPARED = 200_000_000
"""Parameters of all shapes that are timed in turns: their states are in memory at once."""


class TrainStage:
    """The stage ``train``."""

    def resolve(self, config: TrainConfig, planned: Planned = NOTHING_PLANNED) -> TrainConfig:
        """The full configuration of a train cell: every rule applied, the data's fingerprint filled in.

        With a checkpoint, shape and vocabulary are those of the checkpoint.

        Raises:
            UserError: for anything that cannot be trained, naming the key.
        """
        config.check()
        config = started(config, planned)
        config.task.check_data(config.data)
        arch, optim = _arch(config), config.optim
        _check_peak(optim, arch.width)
        if optim.peak_lr is None:
            optim = with_values(optim, peak_lr=peak_lr(optim, arch.width))
        budget, schedule = str(parse_budget(config.budget)), _schedule(config.schedule)
        task = config.task.with_segments(shape_of(replace(config, arch=arch)).segments)
        resolved = replace(config, task=task, arch=arch, optim=optim, schedule=schedule, budget=budget)
        _check_steps(resolved)
        return replace(resolved, data=resolved_data(config.data))

    def shared_work(self, config: TrainConfig) -> Plain:
        """All that identifies the cell but the budget, where the schedule lets budgets share a trunk."""
        identity = identity_of(config)
        if make_schedule(config.schedule, horizon_steps=1).shares_trunk:
            del identity["budget"]
        return identity

    def cost(self, config: TrainConfig, planned: Planned = NOTHING_PLANNED) -> float:  # noqa: ARG002
        """FLOPs of the budget, roughly."""
        return _rough_flops(parse_budget(config.budget), step_of(config))

    def look(self, study: Study, cells: Sequence[Cell], causes: Causes, planned: Planned) -> None:
        """Whether checkpoints are there, and the data can be prepared."""
        by_start: dict[str | None, list[TrainConfig]] = {}
        for cell in cells:
            by_start.setdefault(cell.as_train.checkpoint, []).append(cell.as_train)
        uses = Counter[Use]()
        for same in by_start.values():
            with causes.of(len(same)):
                read = _reading(same[0], study, planned)
                uses.update(replace(read, task=one.task, data=one.data, batch_rows=step_of(one).rows) for one in same)
        for use, count in uses.items():
            with causes.of(count):
                check_use(use, study.data_root)

    def to_prepare(self, cells: list[Cell]) -> list[Cell]:
        """Cells whose shapes are timed in turns before any job starts: one for each, where budgets are in seconds.

        Empty where there is one shape only, which its job times, or where all of them at once would take much memory.
        """
        shapes: dict[str, Cell] = {}
        for cell in cells:
            if cell.as_train.counts_seconds and cell.config.impl.devices == 1:
                shapes[canonical_json(timed_part(cell.as_train))] = cell
        parameters = sum(
            parameter_counts(shape_of(cell.as_train), head_of(cell.as_train)).total for cell in shapes.values()
        )
        return list(shapes.values()) if len(shapes) > 1 and parameters <= MOST_PREPARED else []

    def prepare(self, study: Study, cells: list[Cell], resources: Resources) -> None:
        """Time the shapes of the cells in turns, and keep the times with the study."""
        from trainlarge.training.turns import time_in_turns

        time_in_turns(study, cells, resources)

    def run(self, job: RunningJob) -> None:
        """Train all cells of a job."""
        from trainlarge.training.trunk import run

        run(job)


STAGE: StageRunner[TrainConfig] = TrainStage()


def trunk_id(config: TrainConfig) -> str:
    """Names the trunk that a train cell shares: first 12 hex digits of SHA-256 over its shared work."""
    return hashlib.sha256(canonical_json(STAGE.shared_work(config)).encode()).hexdigest()[:ID_LENGTH]


def timed_part(config: TrainConfig) -> dict[str, Plain]:
    """What the time of a step depends on, and more."""
    return {group.key: group.plain for group in (config.arch, config.data, config.optim, config.task, config.impl)}


def _reading(config: TrainConfig, study: Study, planned: Planned) -> Use:
    """How the data of cells with the same checkpoint is read.

    Raises:
        UserError: nothing can start from the checkpoint, or its tokenizer does not fit.
    """
    use, start = Use(config.task, config.data, 0), find_start(config, study, planned)
    if start is None:
        return use
    if not check_start(start, study, planned):
        return replace(use, is_read_later=True)
    return replace(use, tokenizer=start.tokenizer)


def _rough_flops(budget: Budget, step: Step) -> float:
    if budget.unit == SECONDS:
        return budget.value * TYPICAL_FLOPS_PER_SECOND
    flops = {EPOCHS: TYPICAL_EPOCH_TOKENS * step.flops / step.tokens, STEPS: step.flops, FLOPS: 1.0}
    return budget.value * flops.get(budget.unit, step.flops / step.tokens)


def _schedule(schedule: ScheduleConfig) -> ScheduleConfig:
    horizon = schedule.horizon
    return schedule if horizon is None else with_values(schedule, horizon=kept_form(horizon, "schedule.horizon"))


def _arch(config: TrainConfig) -> ArchConfig:
    arch, length = config.arch, config.data.sequence_length
    family = LIBRARY if config.checkpoint_config else FAMILIES.get(arch.name)
    if family is None:
        raise UserError("arch", arch.name, f"one of {', '.join(FAMILIES)}")
    arch = with_values(arch, positions=arch.positions or length + family.first_position)
    shape = shape_of(replace(config, arch=arch))
    check_sequence_length(shape, length)
    if shape.family.head(head_of(config)).fast is None and config.impl.forward == "fast":
        allowed = f"auto or library: arch.name={shape.name} has no fast forward pass for this task"
        raise UserError("impl.forward", "fast", allowed)
    _check_pooling(config, shape)
    if shape.is_library:
        _check_library(replace(config, arch=arch))
    std = init_std(shape.width) if arch.init_std is None else arch.init_std
    if config.optim.lr_rule == "mup" and std != init_std(shape.width):
        raise UserError(
            "arch.init_std", std, "null with optim.lr_rule=mup, by which initial values follow from the width"
        )
    return with_values(arch, heads=shape.heads, init_std=std)


def _check_pooling(config: TrainConfig, shape: Shape) -> None:
    """Refuse a choice that models of the shape do not have."""
    pooling = config.task.row_pooling
    if pooling is not None and pooling not in shape.family.head(head_of(config)).poolings:
        raise UserError("task.pooling", pooling, f"null: rows are labelled in one way with arch.name={shape.name}")


def _check_library(config: TrainConfig) -> None:
    """Refuse what is known of families alone."""
    if config.optim.lr_rule == "mup":
        raise UserError("optim.lr_rule", "mup", "another rule for a folder whose architecture is no family here")
    if config.impl.attention == "sdpa" and has_eager_alone(shape_of(config)):
        raise UserError("impl.attention", "sdpa", "auto or eager: the architecture of the checkpoint has no other")


def _check_peak(optim: OptimConfig, width: int) -> None:
    """Refuse a rate that is given, and beside it another value of what it would follow from: nobody would read that."""
    default = OptimConfig()
    names = (
        "lr",
        "batch_rule",
        "batch_lr",
        "base_batch",
        *(() if optim.lr_rule == "mup" else ("lr_rule", "base_width")),
    )
    changed = [name for name in names if getattr(optim, name) != getattr(default, name)]
    if optim.peak_lr is not None and changed and peak_lr(optim, width) != optim.peak_lr:
        allowed = f"{shown(getattr(default, changed[0]))} with optim.peak_lr={optim.peak_lr:g}, which takes its place"
        raise UserError(f"optim.{changed[0]}", getattr(optim, changed[0]), allowed)


def _check_steps(config: TrainConfig) -> None:
    """Refuse a budget without one step, and a batch that the devices cannot share."""
    step, budget, devices = step_of(config), parse_budget(config.budget), config.impl.devices
    is_even = config.task.has_even_steps
    if UNKNOWN_PACE.knows(budget) and (is_even or budget.unit == STEPS):
        steps_in(budget, step)
    if not is_even and config.impl.compile != "none":
        allowed = "none with task.batches=bucketed, which would compile again for each row length; or set "
        allowed += "task.batches=padded to compile"
        raise UserError("impl.compile", config.impl.compile, allowed)
    if step.rows % devices:
        allowed = f"must divide the {step.rows} rows of optim.batch={config.optim.batch}"
        raise UserError("impl.devices", devices, allowed)
