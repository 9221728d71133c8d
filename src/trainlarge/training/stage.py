"""Runs a train job: one trunk, a branch for each budget, and a record for each cell."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from torch import Tensor

from trainlarge.config.budget import parse_budget
from trainlarge.data.tokenizer import hugging_face_tokenizer
from trainlarge.launch.job import RunningJob
from trainlarge.machine.step_time import Round, StepTimer
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.files import replacing_folder
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training.cells import counts_seconds, trunk_id
from trainlarge.training.clocks import Clock
from trainlarge.training.curve import Curve, Diverged, LossBuffer, is_curve_step
from trainlarge.training.evaluate import Evaluation, evaluate
from trainlarge.training.extent import Extent, make_extent
from trainlarge.training.ranks import as_rank_0_says, of_rank_0, ranks
from trainlarge.training.record import diverged_record, finished_record
from trainlarge.training.resume import TrainState, TrunkStates
from trainlarge.training.schedule import Branch, branches
from trainlarge.training.setup import Setup
from trainlarge.training.sharding import whole_weights
from trainlarge.training.trunk_folder import TRUNK, TRUNKS, branch_part
from trainlarge.training.trunk_time import TrunkTime, patience, trunk_counts_seconds

NEAR = 1.02
"""How near the place where the first branch leaves the trunk must be for the step time to be fixed."""


def run(job: RunningJob) -> None:
    """Train the cells of a job, which differ in their budgets only, going on from saved states where there are any."""
    with ranks(job.study.path, [cell.id for cell in job.cells], job.cells[0].config["impl"]["devices"]):
        TrunkRun(job).run()


def prepare(study: Study, cells: list[Cell]) -> None:
    """Time the steps of several shapes in turns; cells as ``trainlarge.training.cells.to_prepare`` gives them."""
    from trainlarge.training.turns import time_in_turns

    time_in_turns(study, cells)


class TrunkRun:
    """One trunk with its branches."""

    def __init__(self, job: RunningJob) -> None:
        self.job = job
        self.config: dict[str, Any] = job.cells[0].config
        self.started = time.time()
        self.clock = Clock()
        self.setup = Setup(job.study, self.config)
        trunk = job.study.path / TRUNKS / trunk_id(self.config)
        self.states = TrunkStates(trunk)
        self.time = TrunkTime(trunk, self.setup.timing)
        self.timer = StepTimer(self.setup.implementation.synchronize)
        self.is_fixed = self._take_fixed_time()
        self.extent, self.totals, self.branches = self._layout()
        self.curve = Curve(self.setup.step, self.setup.pace)
        self.resumed_at: list[int] = []
        self.step, self.position, self.rate = 0, 0, 0.0
        self.left_at: dict[int, int] = {}
        """End of a branch -> step at which it left the trunk."""
        self.saved = time.monotonic()
        self.stretch_start, self.stretch_began = (0, 0), time.monotonic()
        self.good = self._weights()

    def run(self) -> None:
        """Train trunk and branches in turn; the trunk goes on from where each branch left it."""
        try:
            self._reach_first_branch()
        except Diverged as error:
            self._give_up(error, self.branches)
            self.branches = []
        for index, branch in enumerate(self.branches):
            try:
                self._go_to(branch)
            except Diverged as error:
                self._give_up(error, self.branches[index:])
                break
            self._run_branch(branch, is_last=index == len(self.branches) - 1)
        self._forget()

    def _take_fixed_time(self) -> bool:
        """Take over the step time that this trunk was trained by before; whether there is one, and it still holds.

        Where it does not, the cells' steps are counted anew and the trunk goes on: the budget is made good.
        """
        cells = [self.job.folder(cell.id) for cell in self.job.cells]
        found = of_rank_0(lambda: self._fixed_time(cells))
        if found is None:
            self.step_seconds = self._settle()
            return False
        self.step_seconds, is_of_this_device = found
        if is_of_this_device:
            self.setup.pace = replace(self.setup.pace, step_seconds=self.step_seconds)
        return True

    def _fixed_time(self, cells: list[CellFolder]) -> tuple[float, bool] | None:
        if self.time.is_contradicted(cells):
            print("the step time of this trunk was too large: its budgets in seconds are made good", flush=True)
            self.time.forget(cells, with_states=trunk_counts_seconds(self.config))
        return self.time.fixed(cells)

    def _settle(self) -> float:
        """The steady-state step time as it looks now, also taken for the modelled seconds so far."""
        seconds = self.setup.settle(patience(self.job.cells))
        self.setup.pace = replace(self.setup.pace, step_seconds=seconds)
        return seconds

    def _layout(self) -> tuple[Extent, dict[str, int], list[Branch]]:
        """Extent, position at which each cell ends, and branches, by the present step time."""
        extent = make_extent(self.config, self.setup.step, self.step_seconds)
        totals = of_rank_0(lambda: {cell.id: self._total(cell, extent) for cell in self.job.cells})
        return extent, totals, branches(extent.schedule, totals)

    def _reach_first_branch(self) -> None:
        """Train to where the first branch leaves, and fix the step time there.

        A smaller step time that is seen on the way moves that place further on.
        """
        while not self.is_fixed:
            if not trunk_counts_seconds(self.config):
                self._train_trunk(self.branches[0])
            self.step_seconds = min(self.step_seconds, self._settle())
            self.extent, self.totals, self.branches = self._layout()
            if self.branches[0].start <= NEAR * self.position or trunk_counts_seconds(self.config):
                self.is_fixed = True
        self.curve.retime(replace(self.curve.pace, step_seconds=self.setup.pace.step_seconds))
        self._keep_time()

    def _keep_time(self) -> None:
        """Keep the fixed step time with trunk, cells and shape."""
        self.time.fix(self.step_seconds, self.step_seconds == self.setup.pace.step_seconds)
        for cell in self.job.cells:
            self.extent.fix(self.totals[cell.id], self.job.folder(cell.id).path)
        if self.step_seconds == self.setup.pace.step_seconds:
            cells = [cell.id for cell in self.job.cells if counts_seconds(cell.config)]
            self.setup.timing.use_for(dict.fromkeys(cells, self.step_seconds))

    def _go_to(self, branch: Branch) -> None:
        """Bring the trunk to where ``branch`` leaves it, and keep its state there."""
        self._train_trunk(branch)
        self.left_at[branch.stop] = self.step
        if branch.start:
            self._save(TRUNK, branch.start)

    def _train_trunk(self, branch: Branch) -> None:
        """Train the trunk to the start of ``branch``, from the newest saved state if that is ahead of us."""
        saved = self.states.newest(TRUNK, at_most=branch.start)
        if saved and saved.step > self.step:
            self._restore(saved)
            self.resumed_at.append(saved.step)
        self._train(branch.start, TRUNK, branch)

    def _run_branch(self, branch: Branch, is_last: bool) -> None:
        """Train a branch, which may diverge alone, and come back to the trunk."""
        trunk, good = self._state(), self.good
        try:
            self._train_branch(branch)
        except Diverged as error:
            self._give_up(error, [branch])
        if not is_last:
            self._restore(trunk)
            self.good = good

    def _train_branch(self, branch: Branch) -> None:
        part = branch_part(branch.stop)
        saved = self.states.newest(part, at_most=branch.stop)
        if saved:
            self._restore(saved)
            self.resumed_at.append(saved.step)
        self._train(branch.stop, part, branch)
        self._finish(branch)

    def _train(self, stop: int, part: str, branch: Branch) -> None:
        """Train to the position ``stop`` on the trunk or on ``branch``."""
        total = None if part == TRUNK else branch.stop

        def rate(step: int) -> float:
            self.rate = self.extent.rate(step, self.position, total)
            return self.rate

        def observe(steps: int, loss: Tensor) -> None:
            self.timer.step()
            self._advance(steps, loss)
            # The last step of a branch has its point when the branch is finished.
            if self.position < branch.stop and is_curve_step(steps, self.config["task"]["evaluations_per_doubling"]):
                self._evaluate(self.rate, part)
            self._tell(branch)
            self._save_in_time(part, stop)
            self.job.check()
            if self.position >= stop:
                self._pause()
                self.setup.stretches.stop()

        if self.position >= stop:
            return
        self.stretch_start, self.stretch_began = (self.step, self.position), time.monotonic()
        self.timer.pause()
        self.clock.start()
        try:
            with self.setup.compiling.pausing(self.clock):
                self.setup.stretches.run(self.step, self.extent.last_step(stop), rate, observe)
        finally:
            self.clock.stop()
            self._keep_round()

    def _keep_round(self) -> None:
        """Keep what was observed of the steps of a stretch."""
        windows = self.timer.take()
        if windows:
            self.setup.timing.add(Round.of("training", windows))

    def _advance(self, steps: int, loss: Tensor) -> None:
        """Take note of a step that is done."""
        self.curve.losses.append(loss)
        if self.config["clock"] == "real":
            self.setup.implementation.synchronize()
        self.step, self.position = steps, self.extent.position(steps, self.clock)

    def _pause(self) -> None:
        """Stop the training clock when the device has done all that was asked of it."""
        self.setup.implementation.synchronize()
        self.clock.stop()
        self.timer.pause()

    def _evaluate(self, rate: float, part: str) -> Evaluation:
        was_running = self.clock.is_running
        self._pause()
        model = self.setup.stretches.module.model
        result = evaluate(model, self.setup.evaluation_set, self.setup.forward.logits)
        kind = TRUNK if part == TRUNK else "branch"
        self.curve.add(self.step, rate * self.config["optim"]["peak_lr"], kind, result, self.clock)
        self.good = self._weights()
        if was_running:
            self.clock.start()
        return result

    def _finish(self, branch: Branch) -> None:
        """Evaluate the end of a branch and write its cells: weights, then curve, then record, then the state."""
        part = branch_part(branch.stop) if branch.start < branch.stop else TRUNK
        last = self._evaluate(self.extent.rate(self.step - 1, branch.stop - 1, branch.stop), part)
        setup = self.setup
        seen = evaluate(setup.stretches.module.model, setup.training_sample, setup.forward.logits)
        weights = whole_weights(setup.stretches.module.model)
        error = setup.documents.standard_error(last.token_losses)
        for cell in self._cells(branch):
            run = {"branch_step": self.left_at[branch.stop], "train_set_loss": seen.loss, **self._run()}
            record = finished_record(cell, setup, self.curve.rows[-1], document_standard_error=error, **run)
            self._write(cell, record, weights, last)

    def _give_up(self, error: Diverged, left: list[Branch]) -> None:
        """Record the cells of branches that diverged, or whose trunk did, with the last weights that were good."""
        last = self.curve.rows[-1] if self.curve.rows else {}
        model = self.setup.stretches.module.model
        model.load_state_dict(self.good)
        weights = whole_weights(model)
        for branch in left:
            for cell in self._cells(branch):
                run = {"branch_step": self.left_at.get(branch.stop), **self._run()}
                self._write(cell, diverged_record(cell, self.setup, last, error.step, **run), weights)

    def _forget(self) -> None:
        self.states.forget_branches()

    def _run(self) -> dict[str, Any]:
        missed = self.step_seconds / (self.setup.timing.estimate() or self.step_seconds)
        return {
            "resumed_at": self.resumed_at, "before": self.curve.pace.before, "started": self.started,
            "budget_missed": missed if counts_seconds(self.config) else None,
        }  # fmt: skip

    def _write(
        self, cell: Cell, record: dict[str, Any], weights: dict[str, Tensor], last: Evaluation | None = None
    ) -> None:
        self.job.require_lease(cell.id)
        folder = self.job.folder(cell.id)
        # Asked again at the end: a copy that wakes from a long pause must not replace what the new holder has written.
        with replacing_folder(folder.checkpoint, check=lambda: self.job.require_lease(cell.id)) as temporary:
            self.setup.stretches.module.model.save_pretrained(temporary, state_dict=weights)
            hugging_face_tokenizer(self.setup.prepared.tokenizer_file).save_pretrained(temporary)
        folder.write_metrics(self.curve.rows)
        if last is None:
            folder.document_losses.unlink(missing_ok=True)
        else:
            folder.write_document_losses(self.setup.documents.file(loss=last.token_losses))
        self.job.finish(cell.id, record)

    def _weights(self) -> dict[str, Tensor]:
        """Copies of the weights, on the CPU."""
        weights = self.setup.stretches.module.model.state_dict()
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}

    def _state(self) -> TrainState:
        losses, pace = self.curve.losses.values().clone(), self.curve.pace.to_json(self.step)
        snapshot = self.setup.stretches.snapshot()
        return TrainState(self.step, snapshot, list(self.curve.rows), losses, self.clock.snapshot(), pace)

    def _restore(self, state: TrainState) -> None:
        self.setup.stretches.restore(state.snapshot)
        self.good = self._weights()
        self.step = state.step
        pace = self.setup.pace.resumed(state.pace, state.step)
        self.curve = Curve(self.setup.step, pace, list(state.rows), LossBuffer(state.losses))
        self.curve.retime(pace)
        self.clock = Clock.restored(state.clock)
        self.position = self.extent.position(self.step, self.clock)

    def _save_in_time(self, part: str, stop: int) -> None:
        if self._is_save_due():
            self._pause()
            self._save(part, stop)
            self.clock.start()

    def _is_save_due(self) -> bool:
        is_late = time.monotonic() - self.saved > self.config["impl"]["save_seconds"]
        is_due = is_late or self.job.is_asked_to_stop
        # A divided state is gathered from all ranks at the same step.
        return as_rank_0_says(is_due) if self.setup.is_sharded else is_due

    def _save(self, part: str, stop: int) -> None:
        """Save the state under its position, at most ``stop``: the real clock goes past it by a part of a step."""
        state = self._state()
        self._keep(part, replace(state, snapshot=state.snapshot.whole()), min(self.position, stop))
        self.saved = time.monotonic()

    def _keep(self, part: str, state: TrainState, position: int) -> None:
        try:
            self.states.save(part, state, position)
        except OSError as error:
            # Training can go on without this state; what cannot be written at the end will fail the cell.
            print(f"the state after step {self.step} was not saved: {error}", flush=True)

    def _tell(self, branch: Branch) -> None:
        """Progress of the stretch at hand, and the time left of the whole job."""
        elapsed = max(time.monotonic() - self.stretch_began, 1e-9)
        first_step, first_position = self.stretch_start
        pace = max(self.position - first_position, 1) / elapsed
        ahead = [other for other in self.branches if other.stop > branch.stop]
        later = (ahead[-1].start - branch.start if ahead else 0) + sum(other.stop - other.start for other in ahead)
        self.job.progress(
            branch.cell_ids[0],
            step=self.step,
            steps=self.extent.steps(self.step, self.position, branch.stop),
            loss=self.curve.rows[-1]["loss"] if self.curve.rows else None,
            tokens_per_second=(self.step - first_step) / elapsed * self.setup.step.tokens,
            seconds_left=max(branch.stop - self.position + later, 0) / pace,
        )

    def _cells(self, branch: Branch) -> list[Cell]:
        return [cell for cell in self.job.cells if cell.id in branch.cell_ids]

    def _total(self, cell: Cell, extent: Extent) -> int:
        return extent.total(parse_budget(cell.config["budget"]), self.job.folder(cell.id).path)
