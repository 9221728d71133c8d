"""Masks that are learned while a model trains: a score per weight decides whether the model computes with it.

As in training that is aware of quantization, nothing is added to the graph: the parameters hold the weights under the
mask from the end of one optimizer step to the gradients of the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from trainlarge.compression.ranking import smallest
from trainlarge.compression.registry import TrainingStart
from trainlarge.config.prune import Scored
from trainlarge.training.modifier import BaseModifier

WEIGHTS, ZEROS, ADAM = "weights.", "zeros.", "adam."
"""Before the names of tensors in a saved state."""


class MaskRule(Protocol):
    """Which weights stay, by their scores."""

    def zeros(self, scores: Sequence[Tensor], done: float) -> Sequence[Tensor]:
        """Of each matrix, bool [n]: the weights that do not take part.

        Args:
            scores: of each matrix, [n].
            done: share of the way to the full strength, in (0, 1].
        """

    def penalty(self, scores: Tensor, done: float) -> Tensor | None:
        """Gradient of what the rule adds to the loss, with respect to all scores, [n]; None where that is nothing."""


class Highest:
    """The highest scores stay: exactly round(done sparsity n) of the n weights of each ranking do not.

    Args:
        sparsity: share of the weights that go in the end.
        scope: ``global`` for one ranking of all weights, ``tensor`` for one of each matrix.
    """

    def __init__(self, sparsity: float, scope: str) -> None:
        self.sparsity, self.scope = sparsity, scope

    def zeros(self, scores: Sequence[Tensor], done: float) -> Sequence[Tensor]:
        sizes, share = [len(of_one) for of_one in scores], self.sparsity * done
        groups = [torch.cat(list(scores))] if self.scope == "global" else scores
        ranked = torch.cat([smallest(group.view(1, -1), round(share * len(group))).view(-1) for group in groups])
        return ranked.split(sizes)  # type: ignore[no-any-return,no-untyped-call]

    def penalty(self, scores: Tensor, done: float) -> None: ...


class AboveThreshold:
    """Scores S with sigmoid(S) > done threshold stay; the loss has done regularization mean(sigmoid(S)) more.

    Args:
        threshold: in the end.
        regularization: in the end.
    """

    def __init__(self, threshold: float, regularization: float) -> None:
        self.threshold, self.regularization = threshold, regularization

    def zeros(self, scores: Sequence[Tensor], done: float) -> Sequence[Tensor]:
        return [of_one.sigmoid() <= done * self.threshold for of_one in scores]

    def penalty(self, scores: Tensor, done: float) -> Tensor:
        shares = scores.sigmoid()
        return shares.mul_(1 - shares).mul_(done * self.regularization / len(scores))


class ScoredMasks(BaseModifier):
    """Lets the model compute with matrices under masks, and trains the scores that the masks follow from.

    Args:
        method: the ramp, and the rate of the scores.
        start: the training.
        rule: which weights stay.
        trains_weights: whether weights train, too. If not, all parameters are held, and scores start at the magnitudes
            of the weights over their mean, not at 0: what cannot train is best ranked by its size to begin with.
    """

    def __init__(self, method: Scored, start: TrainingStart, rule: MaskRule, trains_weights: bool = True) -> None:
        self.method, self.training, self.rule, self.trains_weights = method, start, rule, trains_weights
        self.names = start.weights.selected(method.embeddings)
        self._parameters: list[nn.Parameter] = []
        self._held: list[nn.Parameter] = []
        self._weights: dict[str, Tensor] = {}
        self._zeros: dict[str, Tensor] = {}

    def start(self, model: nn.Module) -> None:
        parameters = dict(model.named_parameters())
        self._parameters = [parameters.pop(name) for name in self.names]
        self._held = [] if self.trains_weights else [one for one in parameters.values() if one.requires_grad]
        for parameter in self._held:
            parameter.requires_grad_(False)
        self._sizes = [parameter.numel() for parameter in self._parameters]
        first = self._parameters[0]
        self._scores = torch.zeros(sum(self._sizes), dtype=first.dtype, device=first.device)
        if not self.trains_weights:
            magnitudes = torch.cat([parameter.detach().abs().flatten() for parameter in self._parameters])
            self._scores = magnitudes / magnitudes.mean()
        # Fused: one pass over the scores, and not one for each operation of Adam.
        self._adam = torch.optim.Adam([self._scores.requires_grad_()], self.method.scores_lr, fused=True)

    @torch.no_grad()
    def before_step(self, step: int, model: nn.Module) -> None:
        gradients = []
        for name, parameter in zip(self.names, self._parameters, strict=True):
            if name in self._weights:
                parameter.copy_(self._weights[name])
            gradients.append(self._to_scores(name, parameter))
        self._train_scores(torch.cat(gradients), step - self.training.first_step)

    def _to_scores(self, name: str, parameter: nn.Parameter) -> Tensor:
        """The gradient of a matrix's scores, [n]; that of the matrix becomes one of the weights that take part."""
        if parameter.grad is None:
            return torch.zeros_like(parameter).view(-1)
        of_scores = (parameter.grad * parameter).view(-1)
        if not self.trains_weights:
            parameter.grad = None
        elif name in self._zeros:
            parameter.grad.masked_fill_(self._zeros[name], 0.0)
        return of_scores

    def _train_scores(self, gradient: Tensor, done: int) -> None:
        share = self.method.done_after(done, self.training.steps)
        if (penalty := self.rule.penalty(self._scores, share)) is not None:
            gradient += penalty
        self._scores.grad = gradient
        self._adam.param_groups[0]["lr"] = self.method.scores_lr * self.training.rate(done)
        self._adam.step()
        self._scores.grad = None

    @torch.no_grad()
    def after_step(self, step: int, model: nn.Module) -> None:
        done = self.method.done_after(step - self.training.first_step, self.training.steps)
        if not done:
            return
        masks = self.rule.zeros(self._scores.detach().split(self._sizes), done)  # type: ignore[no-untyped-call]
        for name, parameter, zeros in zip(self.names, self._parameters, masks, strict=True):
            self._weights[name] = parameter.detach().clone()
            self._zeros[name] = zeros.view(parameter.shape)
            parameter.masked_fill_(self._zeros[name], 0.0)

    def finish(self, model: nn.Module) -> None:
        for parameter in self._held:
            parameter.requires_grad_(True)

    def state(self) -> dict[str, Tensor]:
        """Scores with their moments, and the matrices that train with the masks: the model has zeros in them."""
        adam = {ADAM + name: tensor for name, tensor in self._adam.state[self._scores].items()}
        matrices = {WEIGHTS + name: tensor for name, tensor in self._weights.items()}
        masks = {ZEROS + name: tensor for name, tensor in self._zeros.items()}
        tensors = {"scores": self._scores.detach(), **adam, **matrices, **masks}
        return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        device = self._scores.device
        self._scores.copy_(state["scores"])
        self._adam.state[self._scores] = {name: tensor.to(device) for name, tensor in _after(ADAM, state).items()}
        self._weights = {name: tensor.to(device, copy=True) for name, tensor in _after(WEIGHTS, state).items()}
        self._zeros = {name: tensor.to(device, copy=True) for name, tensor in _after(ZEROS, state).items()}
        for name, parameter in zip(self.names, self._parameters, strict=True):
            if name in self._weights:
                parameter.copy_(self._weights[name]).masked_fill_(self._zeros[name], 0.0)


def _after(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
