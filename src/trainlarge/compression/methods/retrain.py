"""Recovery by training, with pruned weights held at zero: on the task alone, or towards a teacher."""

from __future__ import annotations

from dataclasses import replace

from trainlarge.compression.registry import trains
from trainlarge.compression.training import ParentRun, Target, TrainingPlan
from trainlarge.compression.weights import Weights
from trainlarge.config.recover import Distill, Recovery, Retrain
from trainlarge.errors import UserError
from trainlarge.training.modifier import Freeze, HoldZeros, Modifier


@trains(Retrain)
def retrain(method: Retrain, weights: Weights, parent: ParentRun | None) -> TrainingPlan:
    """On the task alone."""
    return _plan(method, weights, parent)


@trains(Distill)
def distill(method: Distill, weights: Weights, parent: ParentRun | None) -> TrainingPlan:
    """Towards a teacher; the rate falls to 0 in each stage."""
    plan = _plan(method, weights, parent)
    rate = plan.rate if method.rewinds else lambda step: method.rate(step, plan.steps)
    return replace(plan, rate=rate, distill=method)


def _plan(method: Recovery, weights: Weights, parent: ParentRun | None) -> TrainingPlan:
    """Zeros of the matrices that methods act on are held; the rate falls linearly to 0, or is that of the parent."""
    steps, peak_lr = _length(method, parent)
    # The zeros of a ticket are those of its mask, and not all that its weights have.
    modifiers: list[Modifier] = [] if method.rewinds else [HoldZeros(frozenset(weights.selected(embeddings=True)))]
    if method.trains == "norms_and_biases":
        modifiers.append(Freeze(weights.matrices))
    if method.rewinds and parent is not None:
        first, rate = method.first_step, parent.rate
        return TrainingPlan(steps, peak_lr, lambda step: rate(first + step), modifiers, first_step=first)
    target = None if method.dense_share is None else Target(method.dense_share, method.checks)
    return TrainingPlan(steps, peak_lr, lambda step: 1 - step / steps, modifiers, target)


def _length(method: Recovery, parent: ParentRun | None) -> tuple[int, float]:
    """Steps and peak learning rate."""
    if parent is not None:
        return method.steps(parent.steps, parent.epoch_steps), method.peak_lr(parent.peak_lr)
    unknown = "since nothing is known of the training that made this model"
    if method.rewinds:
        raise UserError("recover.rewind", method.rewind, f"none, {unknown}")
    if method.needs_parent:
        key = "at_most" if method.at_most else "budget"
        raise UserError(f"recover.{key}", method.length, f"a number of steps ('500 steps'), {unknown}")
    if method.lr is None:
        raise UserError("recover.lr", None, f"a positive number, {unknown}")
    return method.steps(parent_steps=0, epoch_steps=0), method.lr
