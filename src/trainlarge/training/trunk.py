"""Runs a train job: one trunk, a branch for each budget, and a record for each cell."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from trainlarge.config.budget import parse_budget
from trainlarge.config.schema import TrainConfig
from trainlarge.data.tokenizer import hugging_face_tokenizer
from trainlarge.launch.job import RunningJob
from trainlarge.models.model_folder import tokenizer_files
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.records import TrainRecord
from trainlarge.sweep.store import CellFolder
from trainlarge.tasks.evaluation import Evaluation, evaluated_text
from trainlarge.tasks.predictions import write_predictions
from trainlarge.training.cells import trunk_id
from trainlarge.training.clocks import Clock
from trainlarge.training.context import TrainContext
from trainlarge.training.curve import DivergedError, is_curve_step
from trainlarge.training.progress import Progress
from trainlarge.training.ranks import of_rank_0, ranks
from trainlarge.training.record import EndEvaluation, RunFacts, diverged_record, finished_record
from trainlarge.training.resume import TrunkStates
from trainlarge.training.run_length import RunLength, make_run_length
from trainlarge.training.saver import Saver
from trainlarge.training.schedule import Branch, branches
from trainlarge.training.sharding import whole_weights
from trainlarge.training.train_run import TrainRun
from trainlarge.training.trunk_folder import TRUNK, TRUNKS, branch_part
from trainlarge.training.trunk_time import TrunkTime, patience, trunk_counts_seconds
from trainlarge.training.weight_change import changes_since_start, total_change
from trainlarge.training.writer import CellResult, FixedStepTime, NoWriter, StudyWriter, Writer

log = logging.getLogger(__name__)

NEAR = 1.02
"""How near the place where the first branch leaves the trunk must be for the step time to be fixed."""
MakeWriter = Callable[[RunningJob, TrunkStates], Writer]


def run(job: RunningJob) -> None:
    """Train the cells of a job, which differ in their budgets only, from saved states where there are any."""
    cell_ids, devices = [cell.id for cell in job.cells], job.cells[0].config.impl.devices
    with ranks(job.study.path, cell_ids, devices, job.resources):
        Trunk(job, StudyWriter).train()


def compute_only(job: RunningJob) -> None:
    """Compute what ``run`` does, as one of several ranks, and write nothing."""
    Trunk(job, lambda _job, _states: NoWriter()).train()


class Trunk:
    """One trunk with its branches: the order in which they are trained, and by which step time."""

    def __init__(self, job: RunningJob, make_writer: MakeWriter) -> None:
        self.job = job
        self.config: TrainConfig = job.cells[0].as_train
        self.started, clock = time.time(), Clock()
        folder = job.study.path / TRUNKS / trunk_id(self.config)
        self.states = TrunkStates(folder)
        self.writer = make_writer(job, self.states)
        self.context = TrainContext(job.study, self.config, job.resources)
        start = self.context.start
        of_rank_0(lambda: self.states.keep_those_from(start.weights if start else None))
        self.time = TrunkTime(folder, self.context.timing)
        self.is_fixed = self._take_fixed_time()
        length, self.totals, self.branches = self._layout()
        self.run = TrainRun(self.context, length, clock)
        self.saver = Saver(self.run, job, self.writer)
        self.progress = Progress(self.run, job)
        self.branched_at: dict[int, int] = {}
        """End of a branch -> step at which it left the trunk."""

    def train(self) -> None:
        """Train trunk and branches in turn; the trunk continues from where each branch left it."""
        try:
            self._reach_first_branch()
        except DivergedError as error:
            self._record_divergence(error, self.branches)
            self.branches = []
        for index, branch in enumerate(self.branches):
            try:
                self._train(TRUNK, branch.start, branch)
            except DivergedError as error:
                self._record_divergence(error, self.branches[index:])
                break
            self.branched_at[branch.stop] = self.run.step
            if branch.start:
                self.saver.save(TRUNK, branch.start)
            self._train_branch(branch, is_last=index == len(self.branches) - 1)
        self.writer.delete_branch_states()

    def _take_fixed_time(self) -> bool:
        """Take over the step time that this trunk was trained by before; whether there is one, and it still holds.

        Where it does not, the steps of the cells are counted again, and the trunk continues to their end.
        """
        cells = [self.job.folder(cell.id) for cell in self.job.cells]
        fixed = of_rank_0(lambda: self._fixed_time(cells))
        if fixed is None:
            self.step_seconds = self._settle()
            return False
        self.step_seconds, is_of_this_device = fixed
        if is_of_this_device:
            self._use_for_model_seconds(self.step_seconds)
        return True

    def _fixed_time(self, cells: list[CellFolder]) -> tuple[float, bool] | None:
        if self.time.is_contradicted(cells):
            log.info("the step time of this trunk was too large: its budgets in seconds are corrected")
            self.time.forget(cells, with_states=trunk_counts_seconds(self.config))
        return self.time.fixed(cells)

    def _settle(self) -> float:
        """The steady-state step time as it looks now, also taken for the modelled seconds so far."""
        seconds = self.context.settle(patience(self.job.cells))
        self._use_for_model_seconds(seconds)
        return seconds

    def _use_for_model_seconds(self, step_seconds: float) -> None:
        self.context.run_timing = replace(self.context.run_timing, step_seconds=step_seconds)

    def _layout(self) -> tuple[RunLength, dict[str, int], list[Branch]]:
        """Run length, position at which each cell ends, and branches, by the present step time."""
        length = make_run_length(self.config, self.context.step, self.step_seconds, self.context.training_rows)
        budgets = {cell.id: parse_budget(cell.as_train.budget) for cell in self.job.cells}
        totals = of_rank_0(
            lambda: {cell: length.total(budget, self.job.folder(cell)) for cell, budget in budgets.items()}
        )
        return length, totals, branches(length.schedule, totals)

    def _reach_first_branch(self) -> None:
        """Train to where the first branch leaves, and fix the step time there.

        A smaller step time that is seen on the way moves that place further on.
        """
        while not self.is_fixed:
            if not trunk_counts_seconds(self.config):
                self._train(TRUNK, self.branches[0].start, self.branches[0])
            self.step_seconds = min(self.step_seconds, self._settle())
            self.run.length, self.totals, self.branches = self._layout()
            if self.branches[0].start <= NEAR * self.run.position or trunk_counts_seconds(self.config):
                self.is_fixed = True
        own_step_seconds = self.context.run_timing.step_seconds
        self.run.use_step_time(own_step_seconds)
        fixed = FixedStepTime(self.step_seconds, self.step_seconds == own_step_seconds, self.totals)
        self.writer.step_time(self.time, self.context.timing, self.run.length, fixed)

    def _train_branch(self, branch: Branch, is_last: bool) -> None:
        """Train a branch, which may diverge alone, and come back to the trunk."""
        trunk, last_good_weights = self.run.state(), self.run.last_good_weights
        try:
            self._train(branch_part(branch.stop), branch.stop, branch)
            self._finish(branch)
        except DivergedError as error:
            self._record_divergence(error, [branch])
        if not is_last:
            self.run.restore(trunk)
            self.run.last_good_weights = last_good_weights

    def _train(self, part: str, stop: int, branch: Branch) -> None:
        """Train to the position ``stop``, on the trunk or on ``branch``, from the newest saved state that is ahead."""
        saved = self.states.newest(part, at_most=stop)
        if saved and saved.step > self.run.step:
            self.run.resume(saved)
        if self.run.position >= stop:
            return
        self.progress.begin()
        try:
            self.run.train(stop, None if part == TRUNK else branch.stop, partial(self._after_step, stop, part, branch))
        finally:
            if observed := self.run.timed_round():
                self.writer.round(self.context.timing, observed)

    def _after_step(self, stop: int, part: str, branch: Branch) -> None:
        points_per_doubling = self.config.task.evaluations_per_doubling
        # The last step of a branch has its point when the branch is finished.
        if self.run.position < branch.stop and is_curve_step(self.run.step, points_per_doubling):
            self.run.evaluate(self.run.rate, TRUNK if part == TRUNK else "branch")
        self.progress.report(branch, self.branches)
        self.saver.save_if_due(part, stop)
        self.job.check()

    def _finish(self, branch: Branch) -> None:
        """Evaluate the end of a branch and write its cells."""
        run, context, model = self.run, self.context, self.context.loop.module.model
        rate, held_out = run.length.rate(run.step - 1, branch.stop - 1, branch.stop), context.selection_set
        texts = context.text_sets
        evaluation = run.evaluate(rate, "branch" if branch.start < branch.stop else TRUNK)
        weights = whole_weights(model)
        changes = changes_since_start(context, weights)
        ending = EndEvaluation(
            last=run.curve.rows[-1],
            train_set_loss=context.task.evaluate(model, context.training_sample).loss,
            document_standard_error=context.documents.standard_error(evaluation.losses),
            selection=None if held_out is None else context.task.evaluate(model, held_out).metrics,
            weight_change=total_change(context, changes),
            texts={name: evaluated_text(data, context.task.evaluate(model, data)) for name, data in texts.items()},
        )
        for cell in self._cells(branch):
            self.writer.weight_changes(cell, changes)
            record = finished_record(cell, context, self._run_facts(branch), ending)
            self._write(cell, record, evaluation, weights)

    def _record_divergence(self, error: DivergedError, left: list[Branch]) -> None:
        """Record the cells of branches that diverged, or whose trunk did, with the last weights that were good."""
        last = self.run.curve.rows[-1] if self.run.curve.rows else None
        model = self.context.loop.module.model
        model.load_state_dict(self.run.last_good_weights)
        weights = whole_weights(model)
        for branch in left:
            for cell in self._cells(branch):
                record = diverged_record(cell, self.context, self._run_facts(branch), last, error.step)
                self._write(cell, record, None, weights)

    def _run_facts(self, branch: Branch) -> RunFacts:
        missed = self.step_seconds / (self.context.timing.estimate() or self.step_seconds)
        return RunFacts(
            started=self.started,
            command=self.job.command,
            before=self.run.curve.timing.before,
            branch_step=self.branched_at.get(branch.stop),
            resumed_at=self.run.resumed_at,
            budget_missed=missed if self.config.counts_seconds else None,
        )

    def _write(
        self, cell: Cell, record: TrainRecord, evaluation: Evaluation | None, weights: dict[str, Tensor]
    ) -> None:
        context = self.context
        losses = None if evaluation is None else context.documents.file(loss=evaluation.losses)
        save_predictions = partial(write_predictions, data=context.evaluation_set, evaluation=evaluation)

        def save_checkpoint(folder: Path) -> None:
            context.loop.module.model.save_pretrained(folder, state_dict=weights)
            if context.start is None:
                hugging_face_tokenizer(context.prepared.tokenizer_file).save_pretrained(folder)
            for file in tokenizer_files(context.start.folder) if context.start else ():
                # Byte by byte: prepared data is found by it.
                shutil.copyfile(file, folder / file.name)

        self.writer.cell(cell, CellResult(record, self.run.curve.rows, losses, save_predictions, save_checkpoint))

    def _cells(self, branch: Branch) -> list[Cell]:
        return [cell for cell in self.job.cells if cell.id in branch.cell_ids]
