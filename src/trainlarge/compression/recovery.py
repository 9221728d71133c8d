"""Training inside a recipe of a study: on the task and the data of the train cell that made the checkpoint.

The state is saved while it trains, in ``<study>/trunks/<recovery id>/``; a stopped run resumes from there with the same
bits. The last state stays there: recipes of other jobs that begin with the same steps take it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
from transformers import PreTrainedModel

from trainlarge.compression.cells import recovery_id
from trainlarge.compression.distillation import Distillation
from trainlarge.compression.layout.tokens import renumbered_batch
from trainlarge.compression.loaded_checkpoint import LoadedCheckpoint
from trainlarge.compression.main_score import MainScore
from trainlarge.compression.recovery_run import RecoveryRun, RunFlops
from trainlarge.compression.study_teacher import StudyTeacher
from trainlarge.compression.training import ParentRun, Trained, TrainingCost, TrainingPlan
from trainlarge.compression.until import UntilScore, goal_of
from trainlarge.compression.weights import Weights
from trainlarge.config.method import Method
from trainlarge.data.arrays import Integers
from trainlarge.launch.job import RunningJob
from trainlarge.sweep.status import CellProgress
from trainlarge.tasks.step import Step, step_of, uneven
from trainlarge.tasks.task import Batch
from trainlarge.training.first_model import first_model
from trainlarge.training.loop import Loop
from trainlarge.training.micro_batch import rows_that_fit
from trainlarge.training.modifier import Modifier
from trainlarge.training.module import Objective
from trainlarge.training.resume import TrunkStates
from trainlarge.training.run_length import make_run_length
from trainlarge.training.schedule import rate_at
from trainlarge.training.start import proven_start
from trainlarge.training.trunk_folder import TRUNKS

log = logging.getLogger(__name__)

PART, EARLY = "recover", "early"
"""Names of the saved states: of the training, and of the steps of the parent that are taken again before it."""


class StudyTrainer:
    """Trains on the task and the data of the train cell that made the checkpoint, and saves its state in the study.

    Args:
        job: the compress job.
        checkpoint: that of a train cell.
    """

    def __init__(self, job: RunningJob, checkpoint: LoadedCheckpoint) -> None:
        self.job, self.checkpoint = job, checkpoint
        self.config = checkpoint.parent.as_train
        self.impl = job.cells[0].config.impl
        self.step: Step = step_of(self.config)
        if not self.config.task.has_even_steps:
            self.step = uneven(self.step, self.config, self._longest_rows)
        record = job.study.folder("train", checkpoint.parent.id).train_record()
        rows = checkpoint.task.training_rows(checkpoint.prepared, self.step.rows)
        schedule = make_run_length(self.config, self.step, record.step_seconds, rows).schedule
        rate = partial(rate_at, schedule, total=record.step)
        self.parent = ParentRun(record.step, self.config.optim.rate, rows / self.step.rows, rate)
        self.seed = self.config.seed
        self._early: dict[tuple[int, bool], Weights] = {}
        self.score = MainScore(checkpoint, self.config)
        self.teachers = StudyTeacher(job.study, checkpoint, self.step)

    def train(
        self,
        plan: TrainingPlan,
        done: tuple[Method, ...],
        ahead: tuple[Method, ...],
        weights: Weights,
        before: TrainingCost,
    ) -> Trained:
        """As ``Trainer.train``, from the newest saved state on."""
        states, first_step = self._states(done, weights, ahead), plan.begins_at(self.parent, before)
        until, taught = self._until(plan, weights, first_step), self.teachers.distillation(plan, weights, first_step)
        loop = self._loop(plan, weights, taught, [*plan.modifiers, *(part for part in (taught, until) if part)])
        flops = RunFlops(self.step.flops_of, self.score.flops, self.teachers.flops_of(plan.distill))
        run = RecoveryRun(loop, plan, first_step, flops, until, taught.note if taught else None)
        self._run(run, states, PART)
        return run.result(weights)

    def early(
        self, steps: int, like: Weights, is_redrawn: bool, done: tuple[Method, ...], ahead: tuple[Method, ...]
    ) -> Weights:
        """As ``Trainer.early``: the parent's first steps are taken again, dense, from the newest saved state on."""
        key = (steps, is_redrawn)
        if key not in self._early:
            first = like.taken_from(self._first_model(is_redrawn))
            self._early[key] = self._trained_early(steps, first, self._states(done, like, ahead)) if steps else first
        return self._early[key]

    def _first_model(self, is_redrawn: bool) -> PreTrainedModel:
        config, prepared = self.config, self.checkpoint.prepared
        if is_redrawn:
            digest = hashlib.sha256(f"reinitialized {config.seed}".encode()).digest()
            config = replace(config, seed=int.from_bytes(digest[:4], "big"))
        start = proven_start(config, self.job.study)
        return first_model(config, start, prepared.pad_id, self.checkpoint.implementation.attention)

    def _trained_early(self, steps: int, first: Weights, states: TrunkStates) -> Weights:
        plan = TrainingPlan(steps, self.parent.peak_lr, self.parent.rate, modifiers=())
        run = RecoveryRun(self._loop(plan, first, None, ()), plan, 0, RunFlops(self.step.flops_of))
        self._run(run, states, EARLY)
        return run.result(first).weights

    def _states(self, done: tuple[Method, ...], weights: Weights, ahead: tuple[Method, ...]) -> TrunkStates:
        """The saved states of the training at the end of some steps."""
        recovery = recovery_id(self.checkpoint.parent.id, done, not weights.is_head_whole, ahead)
        states = TrunkStates(self.job.study.path / TRUNKS / recovery)
        states.keep_those_from(self.teachers.weights_of_both(done[-1]))
        return states

    def _run(self, run: RecoveryRun, states: TrunkStates, part: str) -> None:
        """Run a training to its end from the newest saved state on, and save it."""
        if saved := states.newest(part, at_most=run.plan.steps):
            run.restore(saved)
        began, resumed_at, saved_at = time.monotonic(), run.step, time.monotonic()

        def after_step() -> None:
            nonlocal saved_at
            self._report(run, (run.step - resumed_at) / max(time.monotonic() - began, 1e-9))
            if self.job.is_asked_to_stop or time.monotonic() - saved_at > self.impl.save_seconds:
                _save(run, states, part)
                saved_at = time.monotonic()
            self.job.check()

        run.run(after_step)
        _save(run, states, part)

    def _until(self, plan: TrainingPlan, weights: Weights, first_step: int) -> UntilScore | None:
        """What ends the training where the plan has a target."""
        if plan.target is None:
            return None
        score, share = self.score, plan.target.dense_share
        return UntilScore(
            lambda model: score.of(cast(PreTrainedModel, model), weights.structure.tokens),
            lambda: goal_of(share, score.dense, score.higher_is_better),
            score.higher_is_better,
            first_step=first_step,
            steps=plan.steps,
            checks=plan.target.checks,
        )

    def _loop(
        self, plan: TrainingPlan, weights: Weights, taught: Distillation | None, modifiers: Sequence[Modifier]
    ) -> Loop:
        task, seed = self.checkpoint.task, self.config.seed
        loss = taught.student_loss if taught else task.loss
        predicts_tokens = self.checkpoint.evaluation_set.predicts_tokens
        model, tokens = cast(PreTrainedModel, weights.trainable()), weights.structure.tokens

        def renumbered(batch: Batch) -> Batch:
            return renumbered_batch(batch, tokens, predicts_tokens)

        prepared = self.checkpoint.prepared
        rows = self.impl.micro_batch_rows or rows_that_fit(
            model,
            loss,
            lambda rows: renumbered(task.largest_batch(prepared, rows)),
            self.step.rows,
            self.checkpoint.implementation,
            sharing=self.job.cells[0].config.workers or 1,
        )
        return Loop(
            model,
            Objective(loss, task.weight),
            lambda step: renumbered(task.batch(prepared, seed, step, self.step.rows)),
            replace(self.config.optim, peak_lr=plan.peak_lr),
            self.checkpoint.implementation,
            seed=seed,
            micro_batch_rows=rows,
            modifiers=modifiers,
        )

    def _longest_rows(self, start: int, stop: int) -> Integers:
        checkpoint = self.checkpoint
        lengths = checkpoint.task.row_lengths(checkpoint.prepared, self.config.seed, self.step.rows, start, stop)
        return np.asarray(lengths.max(1))

    def _report(self, run: RecoveryRun, steps_per_second: float) -> None:
        self.job.progress(
            self.job.cells[-1].id,
            CellProgress(
                run.step,
                run.plan.steps,
                tokens_per_second=steps_per_second * self.step.tokens,
                seconds_left=(run.plan.steps - run.step) / steps_per_second,
            ),
        )


def _save(run: RecoveryRun, states: TrunkStates, part: str) -> None:
    was_running = run.clock.is_running
    run.pause()
    try:
        states.save(part, run.state(), run.step)
    except OSError as error:
        # Training can continue without this state.
        log.warning("the state after step %s of recovery was not saved: %s", run.step, error)
    if was_running:
        run.clock.start()
