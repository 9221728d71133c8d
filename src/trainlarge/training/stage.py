"""Runs a train job: one trunk, a branch for each budget, and a record for each cell."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from torch import Tensor

from trainlarge.config.budget import parse_budget
from trainlarge.data.tokenizer import hugging_face_tokenizer
from trainlarge.launch.job import RunningJob
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.files import replacing_folder
from trainlarge.training.cells import trunk_id
from trainlarge.training.clocks import Clock
from trainlarge.training.curve import Curve, Diverged, LossBuffer, is_curve_step
from trainlarge.training.evaluate import evaluate
from trainlarge.training.extent import Extent, make_extent
from trainlarge.training.ranks import as_rank_0_says, ranks
from trainlarge.training.record import diverged_record, finished_record
from trainlarge.training.resume import TrainState, TrunkStates
from trainlarge.training.schedule import Branch, branches
from trainlarge.training.setup import Setup
from trainlarge.training.sharding import whole_weights
from trainlarge.training.trunk_folder import TRUNK, TRUNKS, branch_part


def run(job: RunningJob) -> None:
    """Train the cells of a job, which differ in their budgets only, going on from saved states where there are any."""
    with ranks(job.study.path, [cell.id for cell in job.cells], job.cells[0].config["impl"]["devices"]):
        TrunkRun(job).run()


class TrunkRun:
    """One trunk with its branches."""

    def __init__(self, job: RunningJob) -> None:
        self.job = job
        self.config: dict[str, Any] = job.cells[0].config
        self.started = time.time()
        self.clock = Clock()
        self.setup = Setup(job.study, self.config)
        trunk = job.study.path / TRUNKS / trunk_id(self.config)
        self.extent: Extent = make_extent(self.config, self.setup.step, self.setup.step_seconds, trunk)
        self.curve = Curve(self.setup.step, self.setup.pace)
        totals = {cell.id: self._total(cell) for cell in job.cells}
        self.branches: list[Branch] = branches(self.extent.schedule, totals)
        self.states = TrunkStates(trunk)
        self.resumed_at: list[int] = []
        self.step, self.position, self.rate = 0, 0, 0.0
        self.left_at: dict[int, int] = {}
        """End of a branch -> step at which it left the trunk."""
        self.saved = time.monotonic()
        self.stretch_start, self.stretch_began = (0, 0), time.monotonic()
        self.good = self._weights()

    def run(self) -> None:
        """Train trunk and branches in turn; the trunk goes on from where each branch left it."""
        for index, branch in enumerate(self.branches):
            try:
                self._go_to(branch)
            except Diverged as error:
                self._give_up(error, self.branches[index:])
                break
            self._run_branch(branch, is_last=index == len(self.branches) - 1)
        self._forget()

    def _go_to(self, branch: Branch) -> None:
        """Bring the trunk to where ``branch`` leaves it, from the newest saved state if that is ahead of us."""
        saved = self.states.newest(TRUNK, at_most=branch.start)
        if saved and saved.step > self.step:
            self._restore(saved)
            self.resumed_at.append(saved.step)
        self._train(branch.start, TRUNK, branch)
        self.left_at[branch.stop] = self.step
        if branch.start:
            self._save(TRUNK, branch.start)

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
        self.clock.start()
        try:
            with self.setup.compiling.pausing(self.clock):
                self.setup.stretches.run(self.step, self.extent.last_step(stop), rate, observe)
        finally:
            self.clock.stop()

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

    def _evaluate(self, rate: float, part: str) -> None:
        was_running = self.clock.is_running
        self._pause()
        model = self.setup.stretches.module.model
        result = evaluate(model, self.setup.evaluation_set, self.setup.forward.logits)
        kind = TRUNK if part == TRUNK else "branch"
        self.curve.add(self.step, rate * self.config["optim"]["peak_lr"], kind, result, self.clock)
        self.good = self._weights()
        if was_running:
            self.clock.start()

    def _finish(self, branch: Branch) -> None:
        """Evaluate the end of a branch and write its cells: weights, then curve, then record, then the state."""
        part = branch_part(branch.stop) if branch.start < branch.stop else TRUNK
        self._evaluate(self.extent.rate(self.step - 1, branch.stop - 1, branch.stop), part)
        setup = self.setup
        seen = evaluate(setup.stretches.module.model, setup.training_sample, setup.forward.logits)
        weights = whole_weights(setup.stretches.module.model)
        for cell in self._cells(branch):
            run = {"branch_step": self.left_at[branch.stop], "train_set_loss": seen.loss, **self._run()}
            self._write(cell, finished_record(cell, self.setup, self.curve.rows[-1], **run), weights)

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
        return {"resumed_at": self.resumed_at, "before": self.curve.pace.before, "started": self.started}

    def _write(self, cell: Cell, record: dict[str, Any], weights: dict[str, Tensor]) -> None:
        self.job.require_lease(cell.id)
        folder = self.job.folder(cell.id)
        # Asked again at the end: a copy that wakes from a long pause must not replace what the new holder has written.
        with replacing_folder(folder.checkpoint, check=lambda: self.job.require_lease(cell.id)) as temporary:
            self.setup.stretches.module.model.save_pretrained(temporary, state_dict=weights)
            hugging_face_tokenizer(self.setup.prepared.tokenizer_file).save_pretrained(temporary)
        folder.write_metrics(self.curve.rows)
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

    def _total(self, cell: Cell) -> int:
        return self.extent.total(parse_budget(cell.config["budget"]), self.job.folder(cell.id).path)
