"""Gradual magnitude pruning: the sparsity rises while the model trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainlarge.compression.methods.magnitude import magnitude
from trainlarge.compression.registry import Shared, TrainingStart, only_while_training
from trainlarge.config.prune import Gradual, Magnitude
from trainlarge.training.modifier import BaseModifier


@only_while_training(Gradual)
def gradual(method: Gradual, start: TrainingStart) -> RisingSparsity:
    """Zero the smallest weights from time to time, more and more of them."""
    return RisingSparsity(method, frozenset(start.weights.selected(method.embeddings)), start.first_step, start.steps)


class RisingSparsity(BaseModifier):
    """Holds zeros that become more along ``Gradual.done_after``.

    The gradient of a zero is 0 before its norm is taken and before the optimizer sees it; the optimizer's moments of a
    weight that was pruned on the way fade, and the zero is set again after each step.

    Args:
        method: how many weights, and which.
        names: the matrices that are pruned.
        first_step: steps of the loop before training.
        steps: steps of training.
    """

    def __init__(self, method: Gradual, names: frozenset[str], first_step: int, steps: int) -> None:
        self.method, self.names, self.first_step, self.steps = method, names, first_step, steps
        self._parameters: dict[str, nn.Parameter] = {}
        self._zeros: dict[str, Tensor] = {}

    def start(self, model: nn.Module) -> None:
        self._parameters = {name: tensor for name, tensor in model.named_parameters() if name in self.names}

    def before_step(self, step: int, model: nn.Module) -> None:
        for name, zeros in self._zeros.items():
            if (gradient := self._parameters[name].grad) is not None:
                gradient.masked_fill_(zeros, 0.0)

    @torch.no_grad()
    def after_step(self, step: int, model: nn.Module) -> None:
        done = step - self.first_step
        self._set_zeros()
        if self.method.prunes_after(done, self.steps):
            self._choose(self.method.sparsity * self.method.done_after(done, self.steps))
            self._set_zeros()

    def state(self) -> dict[str, Tensor]:
        return {name: zeros.cpu() for name, zeros in self._zeros.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._zeros = {name: zeros.to(self._parameters[name].device, copy=True) for name, zeros in state.items()}

    def _choose(self, sparsity: float) -> None:
        """The smallest weights; those that are 0 are among them."""
        one_shot = Magnitude(sparsity, self.method.scope)
        matrices = {name: parameter.detach().cpu() for name, parameter in self._parameters.items()}
        pruned = magnitude(one_shot, matrices, Shared(methods=(one_shot,)))
        self._zeros = {name: (left.dense() == 0).to(self._parameters[name].device) for name, left in pruned.items()}

    def _set_zeros(self) -> None:
        for name, zeros in self._zeros.items():
            self._parameters[name].masked_fill_(zeros, 0.0)
