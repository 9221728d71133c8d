"""Training until a score: the model is looked at from time to time, and its best weights are the ones that are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from trainlarge.compression.training import TargetResult
from trainlarge.training.modifier import BaseModifier

BEST = "best."
"""Before the name of a tensor of the best weights, in a saved state."""


def goal_of(dense_share: float, dense: float, higher_is_better: bool) -> float:
    """The score that counts as a share of the dense one.

    Of a score that is better higher, such as the accuracy, it is share * dense. Of one that is better lower, such as
    the loss, it is dense / share: 99.5 % of a loss of 3.0 nats is 3.015. A score below 0, of which no share can be
    taken, is itself the goal.
    """
    if dense <= 0:
        return dense
    return dense_share * dense if higher_is_better else dense / dense_share


class UntilScore(BaseModifier):
    """A modifier that looks at a score, remembers the best weights, and puts them into the model in the end.

    Args:
        score: of the model as it is.
        goal: gives the score to reach; it is asked for once, when the score is first looked at.
        higher_is_better: whether a larger score is a better one.
        first_step: steps of the loop before training.
        steps: the most steps of training.
        checks: how often the score is looked at; also before the first step.
    """

    def __init__(
        self,
        score: Callable[[nn.Module], float],
        goal: Callable[[], float],
        higher_is_better: bool,
        *,
        first_step: int,
        steps: int,
        checks: int,
    ) -> None:
        self.score, self._goal_of, self.sign = score, goal, 1 if higher_is_better else -1
        self.first_step, self.steps, self.every = first_step, steps, math.ceil(steps / checks)
        self.checked = 0
        """How often the score was looked at."""
        self.goal = self.best = math.nan
        self._best_weights: dict[str, Tensor] = {}

    @property
    def is_reached(self) -> bool:
        """Whether the best weights are good enough."""
        return self.sign * self.best >= self.sign * self.goal

    @torch.no_grad()
    def look(self, model: nn.Module) -> None:
        """Look at the score now; the weights are kept if it is the best."""
        if math.isnan(self.goal):
            self.goal = self._goal_of()
        found = self.score(model)
        self.checked += 1
        if math.isnan(self.best) or self.sign * found > self.sign * self.best:
            self.best = found
            self._best_weights = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}

    def after_step(self, step: int, model: nn.Module) -> None:
        done = step - self.first_step
        if done % self.every == 0 or done == self.steps:
            self.look(model)

    def finish(self, model: nn.Module) -> None:
        if self._best_weights:
            model.load_state_dict(self._best_weights)

    def state(self) -> dict[str, Tensor]:
        weights = {BEST + name: tensor.clone() for name, tensor in self._best_weights.items()}
        scores = torch.tensor([self.goal, self.best], dtype=torch.float64)
        return {**weights, "scores": scores, "checked": torch.tensor(self.checked)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        (self.goal, self.best), self.checked = state["scores"].tolist(), int(state["checked"])
        names = (name for name in state if name.startswith(BEST))
        self._best_weights = {name.removeprefix(BEST): state[name].clone() for name in names}

    @property
    def result(self) -> TargetResult:
        """What became of it."""
        return TargetResult(self.goal, self.best if math.isfinite(self.best) else None, self.is_reached)
