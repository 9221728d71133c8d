"""Runs a train job: one trunk, a branch for each budget, and a record for each cell."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from trainlarge.config.budget import parse_budget
from trainlarge.data.tokenizer import hugging_face_tokenizer
from trainlarge.launch.job import RunningJob
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.files import write_json
from trainlarge.sweep.store import replace_folder
from trainlarge.training.cells import trunk_id
from trainlarge.training.clocks import Clock
from trainlarge.training.curve import Curve, Diverged, LossBuffer, is_curve_step
from trainlarge.training.evaluate import evaluate
from trainlarge.training.record import diverged_record, finished_record
from trainlarge.training.resume import TRUNK, TrainState, TrunkStates, branch_part
from trainlarge.training.schedule import Branch, Schedule, branches, make_schedule
from trainlarge.training.setup import Setup
from trainlarge.training.steps import steps_in


def run(job: RunningJob) -> None:
    """Train the cells of a job, which differ in their budgets only, going on from saved states where there are any."""
    TrunkRun(job).run()


class TrunkRun:
    """One trunk with its branches."""

    def __init__(self, job: RunningJob) -> None:
        self.job = job
        self.config: dict[str, Any] = job.cells[0].config
        self.started = time.time()
        self.clock = Clock()
        self.setup = Setup(job.study, self.config)
        self.schedule: Schedule = make_schedule(self.config["schedule"], self._horizon_steps())
        self.curve = Curve(self.setup.step, self.setup.step_seconds)
        self.branches: list[Branch] = branches(self.schedule, {cell.id: self._total(cell) for cell in job.cells})
        self.states = TrunkStates(job.study.path / "trunks" / trunk_id(self.config))
        self.resumed_at: list[int] = []
        self.step = 0
        self.saved = time.monotonic()
        self.stretch_start, self.stretch_began = 0, time.monotonic()
        self.good = self._weights()

    def run(self) -> None:
        """Train trunk and branches in turn; the trunk goes on from where each branch left it."""
        for index, branch in enumerate(self.branches):
            try:
                self._go_to(branch)
                self._run_branch(branch, is_last=index == len(self.branches) - 1)
            except Diverged as error:
                self._give_up(error, self.branches[index:])
                return
        self.states.forget_branches()

    def _go_to(self, branch: Branch) -> None:
        """Bring the trunk to where ``branch`` leaves it, from the newest saved state if that is ahead of us."""
        saved = self.states.newest(TRUNK, at_most=branch.start)
        if saved and saved.step > self.step:
            self._restore(saved)
            self.resumed_at.append(saved.step)
        self._train(branch.start, TRUNK, self.schedule.trunk, branch)
        if branch.start:
            self._save(TRUNK)

    def _run_branch(self, branch: Branch, is_last: bool) -> None:
        part, trunk = branch_part(branch.stop), self._state()
        saved = self.states.newest(part, at_most=branch.stop)
        if saved:
            self._restore(saved)
            self.resumed_at.append(saved.step)
        self._train(branch.stop, part, lambda step: self.schedule.branch(step, branch.stop), branch)
        self._finish(branch)
        if not is_last:
            self._restore(trunk)

    def _train(self, stop: int, part: str, rate: Callable[[int], float], branch: Branch) -> None:
        """Train to step ``stop`` on the trunk or on ``branch``."""

        def observe(steps: int, loss: Tensor) -> None:
            self.step = steps
            self.curve.losses.append(loss)
            # The last step of a branch has its point when the branch is finished.
            if steps < branch.stop and is_curve_step(steps, self.config["task"]["evaluations_per_doubling"]):
                self._evaluate(rate(steps - 1), part)
            self._tell(branch)
            self._save_in_time(part)
            self.job.check()

        self.stretch_start, self.stretch_began = self.step, time.monotonic()
        self.clock.start()
        try:
            self.setup.stretches.run(self.step, stop, rate, observe)
        finally:
            self.clock.stop()

    def _evaluate(self, rate: float, part: str) -> None:
        was_running = self.clock.is_running
        self.clock.stop()
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
        self._evaluate(self.schedule.branch(branch.stop - 1, branch.stop), part)
        setup = self.setup
        seen = evaluate(setup.stretches.module.model, setup.training_sample, setup.forward.logits)
        for cell in self._cells(branch):
            run = {"branch_step": branch.start, "resumed_at": self.resumed_at, "started": self.started}
            run["train_set_loss"] = seen.loss
            self._write(cell, finished_record(cell, self.setup, self.curve.rows[-1], **run))

    def _give_up(self, error: Diverged, left: list[Branch]) -> None:
        """Record the cells of a trunk that diverged, with the last weights that were good."""
        last = self.curve.rows[-1] if self.curve.rows else {}
        self.setup.stretches.module.model.load_state_dict(self.good)
        for branch in left:
            for cell in self._cells(branch):
                run = {"branch_step": branch.start, "resumed_at": self.resumed_at, "started": self.started}
                self._write(cell, diverged_record(cell, self.setup, last, error.step, **run))

    def _write(self, cell: Cell, record: dict[str, Any]) -> None:
        self.job.require_lease(cell.id)
        folder = self.job.folder(cell.id)
        temporary = folder.path / ".checkpoint.tmp"
        self.setup.stretches.module.model.save_pretrained(temporary)
        hugging_face_tokenizer(self.setup.prepared.tokenizer_file).save_pretrained(temporary)
        replace_folder(folder.checkpoint, temporary)
        folder.write_metrics(self.curve.rows)
        self.job.finish(cell.id, record)

    def _weights(self) -> dict[str, Tensor]:
        """Copies of the weights, on the CPU."""
        weights = self.setup.stretches.module.model.state_dict()
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}

    def _state(self) -> TrainState:
        losses = self.curve.losses.values().clone()
        return TrainState(
            self.step, self.setup.stretches.snapshot(), list(self.curve.rows), losses, self.clock.snapshot()
        )

    def _restore(self, state: TrainState) -> None:
        self.setup.stretches.restore(state.snapshot)
        self.good = self._weights()
        self.step = state.step
        self.curve = Curve(self.setup.step, self.setup.step_seconds, list(state.rows), LossBuffer(state.losses))
        self.clock = Clock.restored(state.clock)

    def _save_in_time(self, part: str) -> None:
        is_due = time.monotonic() - self.saved > self.config["impl"]["save_seconds"]
        if is_due or self.job.is_asked_to_stop:
            self.clock.stop()
            self._save(part)
            self.clock.start()

    def _save(self, part: str) -> None:
        try:
            self.states.save(part, self._state())
        except OSError as error:
            # Training can go on without this state; what cannot be written at the end will fail the cell.
            print(f"the state after step {self.step} was not saved: {error}", flush=True)
        self.saved = time.monotonic()

    def _tell(self, branch: Branch) -> None:
        """Progress of the stretch at hand, and the time left of the whole job."""
        done = self.step - self.stretch_start
        speed = done / max(time.monotonic() - self.stretch_began, 1e-9)
        ahead = [other for other in self.branches if other.stop > branch.stop]
        later = (ahead[-1].start - branch.start if ahead else 0) + sum(other.stop - other.start for other in ahead)
        self.job.progress(
            branch.cell_ids[0],
            step=self.step,
            steps=branch.stop,
            loss=self.curve.rows[-1]["loss"] if self.curve.rows else None,
            tokens_per_second=speed * self.setup.step.tokens,
            seconds_left=(branch.stop - self.step + later) / speed,
        )

    def _cells(self, branch: Branch) -> list[Cell]:
        return [cell for cell in self.job.cells if cell.id in branch.cell_ids]

    def _total(self, cell: Cell) -> int:
        """Steps of a cell's budget, settled when it first starts: its seconds are those of the device of that start."""
        path = self.job.folder(cell.id).path / "steps.json"
        if not path.exists():
            steps = steps_in(parse_budget(cell.config["budget"]), self.setup.step, self.setup.step_seconds)
            write_json(path, {"steps": steps, "step_seconds": self.setup.step_seconds})
        return int(json.loads(path.read_text(encoding="utf-8"))["steps"])

    def _horizon_steps(self) -> int | None:
        horizon, key = self.config["schedule"]["horizon"], "schedule.horizon"
        return horizon and steps_in(parse_budget(horizon, key), self.setup.step, self.setup.step_seconds, key)
