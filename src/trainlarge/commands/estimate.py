"""What jobs will take, before anything runs: by formula, and in seconds where the study has timed a step."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

from trainlarge.commands.job_words import (
    Words,
    checkpoint_words,
    in_a_line,
    in_order,
    start_words,
    told_apart,
    train_words,
)
from trainlarge.commands.planned_steps import PlannedSteps
from trainlarge.commands.recipe_costs import FLOAT_BYTES, packed_bytes, seconds_of_recipes
from trainlarge.commands.step_times import StepTimes
from trainlarge.commands.terminal import path_in_words
from trainlarge.compression.cells import recoveries_of, recovery_step_flops, recovery_steps
from trainlarge.compression.checkpoint import Checkpoint, find_checkpoint
from trainlarge.config.budget import EPOCHS, SECONDS, parse_budget
from trainlarge.config.data import DataConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.data.corpus import reader_version
from trainlarge.data.prepare import prepared_key
from trainlarge.data.rows_in_use import counted_rows, rows_in_use
from trainlarge.models.counts import parameter_counts
from trainlarge.models.flops import forward_flops
from trainlarge.models.model_folder import weight_count, weight_files
from trainlarge.models.shape import head_of, shape_of
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.checkpoints import is_folder, train_cell
from trainlarge.sweep.plan import Job, Plan
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.step_times import CellSteps, budgets_missed, read_measured
from trainlarge.sweep.store import Study
from trainlarge.tasks.step import Pace, Step, UnevenStep, step_of, steps_in
from trainlarge.training.cells import trunk_id
from trainlarge.training.schedule import Branch, branches, make_schedule
from trainlarge.training.start import tokenizer_of
from trainlarge.training.trunk_folder import KEPT_STATES, TRUNK, TRUNKS, branch_part, saved_position

STATE_BYTES = 3 * FLOAT_BYTES
"""Bytes a parameter takes in a saved state: the weight and the two moments of AdamW (Kingma & Ba 2015)."""
TOKENIZER_ENTRY_BYTES = 45
"""A byte-level BPE tokenizer takes about so much for each entry, its merge included."""
FINE_STEP_SECONDS = 1e-3
"""Stands for an unknown step where only shares of a budget in seconds are asked for."""


@dataclass(frozen=True)
class CellEstimate:
    """What one cell is; by itself, whatever it shares."""

    cell: str
    """Its id."""
    steps: int | None = None
    """Optimizer steps; None for a compress cell, and for a budget in seconds or epochs while no step is timed or the
    data is not prepared."""
    tokens: int | None = None
    """Tokens of its record."""
    flops: int | None = None
    """FLOPs of its record."""


@dataclass(frozen=True, kw_only=True)
class JobEstimate:
    """What one job will take. Work that its cells share counts once; None stands for what cannot be known yet."""

    words: Words
    """The job in a few words."""
    cells: tuple[CellEstimate, ...]
    """Its cells."""
    parameters: int
    """Parameters of the model, embeddings included."""
    steps: int | None = None
    """Optimizer steps of trunk and branches, less those that saved states spare, or steps of recovery."""
    spared_steps: int = 0
    """Steps that need not be done again, because a state after them is saved."""
    tokens: int | None
    """Tokens that go through the model: in training, or in the evaluations of a compress job."""
    flops: int | None
    """FLOPs of those tokens."""
    has_full_rows: bool = False
    """Whether rows count as full ones, since batches are of like lengths and the data is not prepared."""
    seconds: float | None = None
    """Of training at the steady-state step time, without evaluation and data; or of compressing as it took before, or
    about as its evaluations take."""
    timed_on: str | None = None
    """Device whose time was taken; None where a time is none that was measured."""
    disk_bytes: int
    """Checkpoints with their tokenizers, or packed files."""
    state_bytes: int = 0
    """At most, of the saved states for resuming; ``trainlarge clean`` frees them."""

    @property
    def what(self) -> str:
        """The job in a line."""
        return in_a_line(self.words)

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {"what": self.what, **{name: value for name, value in asdict(self).items() if name != "words"}}


@dataclass(frozen=True)
class Estimate:
    """What a plan will take."""

    jobs: tuple[JobEstimate, ...]
    """The longest first, as far as is known; equal ones in order of their words, such as seeds."""
    at_once: int | None
    """Jobs that run at the same time; None: as many as the cluster gives."""

    def total(self, name: str) -> float | None:
        """Sum of a field over all jobs; None when a job does not know it."""
        values = [getattr(job, name) for job in self.jobs]
        return None if None in values else sum(values)

    @cached_property
    def elapsed_seconds(self) -> float | None:
        """Seconds until the last job ends, each started as soon as another ends, the longest first."""
        seconds = [job.seconds for job in self.jobs]
        if None in seconds:
            return None
        ends = [0.0] * min(self.at_once or len(seconds), len(seconds))
        for duration in seconds:
            heapq.heapreplace(ends, ends[0] + (duration or 0.0))
        return max(ends, default=0.0)


def estimate(
    study: Study, plan: Plan, times: StepTimes, at_once: int | None, planned: Planned = NOTHING_PLANNED
) -> Estimate:
    """What the jobs of ``plan`` will take; reads the study, writes nothing.

    Args:
        times: step times of the study.
        at_once: jobs that run at the same time; None: as many as the cluster gives.
        planned: train cells whose checkpoints will be there.
    """
    cells = {cell.id: cell for cell in plan.cells}
    make = _STAGES[plan.stage](study, times, planned)
    jobs = [make(job, [cells[cell_id] for cell_id in job.cell_ids]) for job in plan.jobs]
    configs = [make.trained(cells[job.cell_ids[0]]) for job in plan.jobs]
    starts = start_words(configs, partial(_trained, study, planned))
    told_words = told_apart([job.words for job in jobs], configs, starts)
    told = [replace(job, words=words) for job, words in zip(jobs, told_words, strict=True)]
    costs = [job.cost for job in plan.jobs]
    places = sorted(range(len(told)), key=lambda at: (-(told[at].seconds or 0.0), -costs[at], in_order(told[at].words)))
    return Estimate(tuple(told[place] for place in places), at_once)


def _trained(study: Study, planned: Planned, checkpoint: str) -> TrainConfig | None:
    """What trained a checkpoint; None for a Hugging Face folder."""
    return None if is_folder(checkpoint) else train_cell(study, checkpoint, planned)[1]


def _step_seconds(config: TrainConfig, times: StepTimes, study: Study, planned: Planned) -> float | None:
    """About how long a step takes: where it was not timed, by FLOPs and a step of the pretraining of its checkpoint."""
    if timed := times.find(config):
        return timed.seconds
    start = _trained(study, planned, config.checkpoint) if config.checkpoint else None
    return times.seconds_by_flops(config, start) if start else None


class _Estimates(Protocol):
    """Estimates of the jobs of a stage."""

    def __call__(self, job: Job, cells: list[Cell]) -> JobEstimate:
        """What one of them will take."""

    def trained(self, cell: Cell) -> TrainConfig | None:
        """What is trained in the job of a cell, or has trained its checkpoint; None for a Hugging Face folder."""


class _TrainEstimates:
    """Estimates of train jobs: trunk and branches once, not the sum of the budgets."""

    def __init__(self, study: Study, times: StepTimes, planned: Planned) -> None:
        self._study, self._times, self._missed, self._planned = study, times, budgets_missed(study), planned
        self._has_states = (study.path / TRUNKS).is_dir()
        self._planned_steps = PlannedSteps(study, planned)

    def __call__(self, job: Job, cells: list[Cell]) -> JobEstimate:
        config = cells[0].as_train
        step, timed = self._planned_steps.of(config), self._times.find(config)
        pace = Pace(timed.seconds if timed else None, self._epoch_rows(cells))
        totals = {cell.id: self._steps(cell, step, pace) for cell in cells}
        parts = _branches(config, step, totals, pace)
        # The positions of states are steps only where steps are what counts.
        has_states = self._has_states and config.clock == "modelled"
        spared = _spared_steps(parts, self._study.path / TRUNKS / trunk_id(config)) if has_states else 0
        steps = _steps_in_all(parts) - spared if parts else None
        step_seconds = _step_seconds(config, self._times, self._study, self._planned)
        seconds = steps * step_seconds if step_seconds and steps is not None else _seconds_by_budget(cells, step)
        parameters = parameter_counts(shape_of(config), head_of(config)).total
        checkpoint = FLOAT_BYTES * parameters + self._tokenizer_bytes(config.data)
        return JobEstimate(
            words=train_words(cells),
            cells=tuple(_cell(cell_id, total, step) for cell_id, total in totals.items()),
            parameters=parameters,
            spared_steps=spared,
            steps=steps,
            tokens=None if steps is None else _in_parts(parts, steps, step.tokens_of),
            flops=None if steps is None else _in_parts(parts, steps, step.flops_of),
            has_full_rows=not (config.task.has_even_steps or isinstance(step, UnevenStep)),
            seconds=seconds,
            timed_on=f"{timed.device_name}, {timed.threads} threads" if timed else None,
            disk_bytes=len(cells) * checkpoint,
            state_bytes=KEPT_STATES * STATE_BYTES * parameters,
        )

    def trained(self, cell: Cell) -> TrainConfig:
        """What a job of that cell trains."""
        return cell.as_train

    def _epoch_rows(self, cells: list[Cell]) -> int | None:
        config = cells[0].as_train
        texts = (*(cell.as_train.budget for cell in cells), config.schedule.horizon)
        if all(parse_budget(text).unit != EPOCHS for text in texts if text):
            return None
        of_model = tokenizer_of(config, self._study, self._planned)
        if config.checkpoint and of_model is None:
            # The tokenizer is not there yet.
            return counted_rows(config.data, config.task)
        return rows_in_use(config.data, config.task, self._study.data_root, of_model)

    def _steps(self, cell: Cell, step: Step, pace: Pace) -> int | None:
        """Steps of a cell: those that were fixed for it, unless that proved wrong, or those that its budget gives."""
        fixed = read_measured(CellSteps, self._study.folder(cell.stage, cell.id).steps)
        if fixed is not None and cell.id not in self._missed:
            return fixed.steps
        budget = parse_budget(cell.as_train.budget)
        return steps_in(budget, step, pace) if pace.knows(budget) else None

    def _tokenizer_bytes(self, data: DataConfig) -> int:
        folder = self._study.data_root / prepared_key(data.known_fingerprint, data.vocab_size, reader_version(data))
        try:
            return (folder / "tokenizer.json").stat().st_size
        except FileNotFoundError:
            return int(TOKENIZER_ENTRY_BYTES * data.vocab_size)


class _CompressEstimates:
    """Estimates of compress jobs.

    A job evaluates the checkpoint as it is and once per recipe, and trains once for the recipes that share recovery.
    """

    def __init__(self, study: Study, times: StepTimes, planned: Planned) -> None:
        self._study, self._times, self._planned = study, times, planned
        self._seconds = seconds_of_recipes(study)

    def __call__(self, job: Job, cells: list[Cell]) -> JobEstimate:
        checkpoint = find_checkpoint(cells[0].as_compress, self._study, self._planned)
        parent = checkpoint.trained
        if parent is None:
            return self._of_folder(checkpoint, cells)
        shape, head, length = shape_of(parent), head_of(parent), parent.data.sequence_length
        parameters, step = parameter_counts(shape, head).total, step_of(parent)
        evaluations = len(cells) + 1
        passes = evaluations * parent.task.evaluation_rows
        pass_flops = forward_flops(shape, length, parent.task.evaluation_predictions(length), head)
        recipes = [cell.as_compress for cell in cells]
        recoveries: dict[str, tuple[int | None, int]] = {}
        for recipe in recipes:
            if ids := recoveries_of(recipe):
                of_each = recovery_steps(recipe, self._planned), recovery_step_flops(recipe, self._planned)
                recoveries |= dict.fromkeys(ids, of_each)
        trained = list(recoveries.values())
        known = [(steps, flops) for steps, flops in trained if steps is not None]
        steps = sum(steps for steps, _ in known) if len(known) == len(trained) else None
        recovery_flops = sum(steps * flops for steps, flops in known)
        recipe_seconds, device = self._recipe_seconds_and_device(parent, pass_flops * parent.task.evaluation_rows)
        # A step with a teacher takes as much longer as it has more FLOPs.
        recovery_seconds = self._recovery_seconds(parent, None if steps is None else recovery_flops / step.flops)
        return JobEstimate(
            words=checkpoint_words(parent),
            cells=tuple(CellEstimate(cell.id) for cell in cells),
            parameters=parameters,
            steps=steps,
            tokens=None if steps is None else passes * length + steps * step.tokens,
            flops=None if steps is None else passes * pass_flops + recovery_flops,
            seconds=None
            if recipe_seconds is None or recovery_seconds is None
            else evaluations * recipe_seconds + recovery_seconds,
            timed_on=device,
            disk_bytes=sum(packed_bytes(shape, cell.as_compress.recipe, head) for cell in cells),
            state_bytes=len(trained) * KEPT_STATES * STATE_BYTES * parameters,
        )

    def trained(self, cell: Cell) -> TrainConfig | None:
        """What trained the checkpoint of a job of that cell; None for a Hugging Face folder."""
        return find_checkpoint(cell.as_compress, self._study, self._planned).trained

    def _recipe_seconds_and_device(self, parent: TrainConfig, flops: int) -> tuple[float | None, str | None]:
        """Seconds of one recipe without recovery, and where recipes were timed.

        Before any was, about those of its evaluation, which takes ``flops``: as fast as a step of training.
        """
        timed = self._seconds.get(parameter_counts(shape_of(parent), head_of(parent)).total)
        if timed:
            return timed
        step_seconds = _step_seconds(parent, self._times, self._study, self._planned)
        return (flops * step_seconds / step_of(parent).flops if step_seconds else None), None

    def _recovery_seconds(self, parent: TrainConfig, steps: float | None) -> float | None:
        """Of so many steps of recovery; None where these, or how long a step takes, are not known."""
        if not steps:
            return steps
        step_seconds = _step_seconds(parent, self._times, self._study, self._planned)
        return steps * step_seconds if step_seconds else None

    def _of_folder(self, checkpoint: Checkpoint, cells: list[Cell]) -> JobEstimate:
        """Of a Hugging Face folder, whose shape is not known: 2 FLOPs per parameter and token, files uncompressed."""
        parameters = weight_count(checkpoint.folder)
        file_bytes = sum(path.stat().st_size for path in weight_files(checkpoint.folder))
        length, rows = checkpoint.data.sequence_length, checkpoint.task.evaluation_rows
        tokens = (len(cells) + 1) * rows * length
        return JobEstimate(
            words=(path_in_words(checkpoint.folder),),
            cells=tuple(CellEstimate(cell.id) for cell in cells),
            parameters=parameters,
            steps=0,
            tokens=tokens,
            flops=2 * parameters * tokens,
            disk_bytes=len(cells) * file_bytes,
        )


def _branches(config: TrainConfig, step: Step, totals: dict[str, int | None], pace: Pace) -> list[Branch]:
    """The branches of a job; empty where the steps of a budget are not known."""
    known = {cell_id: total for cell_id, total in totals.items() if total is not None}
    if len(known) < len(totals):
        return []
    return branches(make_schedule(config.schedule, _horizon(config, step, pace)), known)


def _spared_steps(parts: list[Branch], trunk: Path) -> int:
    """Steps that a job skips by resuming from the newest states."""
    spared = reached = 0
    for branch in parts:
        saved = saved_position(trunk, TRUNK, at_most=branch.start)
        spared += max(saved - reached, 0)
        reached = branch.start
        spared += max(saved_position(trunk, branch_part(branch.stop), at_most=branch.stop) - branch.start, 0)
    return spared


def _horizon(config: TrainConfig, step: Step, pace: Pace) -> int | None:
    """Steps of ``schedule.horizon``; it decides rates, not the number of steps, so any number will do where unknown."""
    text = config.schedule.horizon
    if text is None:
        return None
    horizon = parse_budget(text, "schedule.horizon")
    return steps_in(horizon, step, pace, "schedule.horizon") if pace.knows(horizon) else 1


def _seconds_by_budget(cells: list[Cell], step: Step) -> float | None:
    """Seconds of a job whose budgets are all in seconds: its branches are at shares of them, however long a step is."""
    budgets = {cell.id: parse_budget(cell.as_train.budget) for cell in cells}
    if any(budget.unit != SECONDS for budget in budgets.values()):
        return None
    config, pace = cells[0].as_train, Pace(FINE_STEP_SECONDS)
    schedule = make_schedule(config.schedule, _horizon(config, step, pace))
    fine = {cell_id: steps_in(budget, step, pace) for cell_id, budget in budgets.items()}
    return _steps_in_all(branches(schedule, fine)) * FINE_STEP_SECONDS


def _in_parts(parts: list[Branch], steps: int, size: Callable[[int, int], int]) -> int:
    """Tokens or FLOPs of so many of the steps of trunk and branches; ``size`` is that of steps from start to stop."""
    whole = size(0, max(branch.start for branch in parts)) + sum(size(branch.start, branch.stop) for branch in parts)
    in_all = _steps_in_all(parts)
    return whole if steps == in_all else whole * steps // in_all


def _steps_in_all(parts: list[Branch]) -> int:
    return max(branch.start for branch in parts) + sum(branch.stop - branch.start for branch in parts)


def _cell(cell_id: str, steps: int | None, step: Step) -> CellEstimate:
    if steps is None:
        return CellEstimate(cell_id)
    return CellEstimate(cell_id, steps, step.tokens_of(0, steps), step.flops_of(0, steps))


_STAGES: dict[str, Callable[[Study, StepTimes, Planned], _Estimates]] = {
    "train": _TrainEstimates,
    "compress": _CompressEstimates,
}
