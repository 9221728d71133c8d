"""A model in training: where it is, its curve and clocks, and the state that all of that can be restored from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from trainlarge.machine.step_time import Round, StepTimer
from trainlarge.sweep.records import CurveRow
from trainlarge.tasks.evaluation import Evaluation
from trainlarge.training.clocks import Clock
from trainlarge.training.context import TrainContext
from trainlarge.training.curve import Curve, LossBuffer
from trainlarge.training.resume import TrainState
from trainlarge.training.run_length import RunLength


class TrainRun:
    """Trains segment by segment, on the trunk or on a branch.

    Args:
        context: the model ready to train.
        length: what positions are counted in.
        clock: counts from the start of the job.
    """

    def __init__(self, context: TrainContext, length: RunLength, clock: Clock) -> None:
        self.context, self.length, self.clock = context, length, clock
        self.timer = StepTimer(context.implementation.synchronize)
        self.curve = Curve(context.step, context.run_timing)
        self.resumed_at: list[int] = []
        """Steps of the saved states from which it was resumed."""
        self.step, self.position, self.rate = 0, 0, 0.0
        self.last_good_weights = self._weights()
        """Those of the last evaluation with a finite loss, on the CPU."""

    def train(self, stop: int, total: int | None, after_step: Callable[[], None]) -> None:
        """Train to the position ``stop``.

        Args:
            total: end of the branch whose rates hold; None: those of the trunk.
            after_step: called after each step, when ``step`` and ``position`` are those behind it.
        """

        def rate(step: int) -> float:
            self.rate = self.length.rate(step, self.position, total)
            return self.rate

        def observe(steps: int, loss: Tensor) -> None:
            self.timer.step()
            self._advance(steps, loss)
            after_step()
            if self.position >= stop:
                self.pause()
                self.context.loop.stop()

        self.timer.pause()
        self.clock.start()
        try:
            with self.context.compiling.pausing(self.clock):
                self.context.loop.run(self.step, self.length.last_step(stop), rate, observe)
        finally:
            self.clock.stop()

    def timed_round(self) -> Round | None:
        """What was observed of the time of steps since the last call; None where there was no whole window."""
        windows = self.timer.take()
        return Round.of("training", windows) if windows else None

    def pause(self) -> None:
        """Stop the training clock when the device has done all that was asked of it."""
        self.context.implementation.synchronize()
        self.clock.stop()
        self.timer.pause()

    def evaluate(self, rate: float, part: str) -> Evaluation:
        """Evaluate, and add a row to the curve.

        Args:
            rate: learning rate of the last step as a share of the peak rate.
            part: ``trunk`` or ``branch``.

        Raises:
            DivergedError: when a loss is not finite.
        """
        was_running = self.clock.is_running
        self.pause()
        result = self.context.task.evaluate(self.context.loop.module.model, self.context.evaluation_set)
        self.curve.add(self.step, rate * self.context.config.optim.rate, part, result, self.clock)
        self.last_good_weights = self._weights()
        if was_running:
            self.clock.start()
        return result

    def state(self) -> TrainState:
        """Everything that the rest of the run depends on."""
        rows = [row.to_json() for row in self.curve.rows]
        losses, timing = self.curve.losses.values().clone(), self.curve.timing.saved(self.step)
        return TrainState(self.step, self.context.loop.snapshot(), rows, losses, self.clock.snapshot(), timing)

    def restore(self, state: TrainState) -> None:
        """Return to a state."""
        self.context.loop.restore(state.snapshot)
        self.last_good_weights = self._weights()
        self.step = state.step
        timing = self.context.run_timing.resumed(state.timing, state.step)
        rows = [CurveRow.from_json(row) for row in state.rows]
        self.curve = Curve(self.context.step, timing, rows, LossBuffer(state.losses))
        self.curve.retime(timing)
        self.clock = Clock.restored(state.clock)
        self.position = self.length.position(self.step, self.clock)

    def resume(self, state: TrainState) -> None:
        """Continue from a saved state."""
        self.restore(state)
        self.resumed_at.append(state.step)

    def use_step_time(self, seconds: float) -> None:
        """Count the modelled seconds of the present hardware by a new steady-state step time."""
        self.curve.retime(replace(self.curve.timing, step_seconds=seconds))

    def _advance(self, steps: int, loss: Tensor) -> None:
        """Take note of a step that is done."""
        self.curve.losses.append(loss)
        if self.context.config.clock == "real":
            self.context.implementation.synchronize()
        self.step, self.position = steps, self.length.position(steps, self.clock)

    def _weights(self) -> dict[str, Tensor]:
        """Copies of the weights, on the CPU."""
        weights = self.context.loop.module.model.state_dict()
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}
