"""Pruning by scores that are learned while the model trains: movement, soft movement, and adapting by pruning."""

from __future__ import annotations

from trainlarge.compression.registry import TrainingStart, only_while_training
from trainlarge.compression.scored_masks import AboveThreshold, Highest, ScoredMasks
from trainlarge.config.prune import Adapt, Movement, SoftMovement


@only_while_training(Movement)
def movement(method: Movement, start: TrainingStart) -> ScoredMasks:
    """Weights and scores train, and those of the highest scores stay."""
    return ScoredMasks(method, start, Highest(method.sparsity, method.scope))


@only_while_training(SoftMovement)
def soft_movement(method: SoftMovement, start: TrainingStart) -> ScoredMasks:
    """Weights and scores train, and those of scores above a threshold stay."""
    return ScoredMasks(method, start, AboveThreshold(method.threshold, method.regularization))


@only_while_training(Adapt)
def adapt(method: Adapt, start: TrainingStart) -> ScoredMasks:
    """Scores train alone."""
    return ScoredMasks(method, start, Highest(method.sparsity, method.scope), trains_weights=False)
