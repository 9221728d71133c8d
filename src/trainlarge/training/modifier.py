"""What a compression method does to a model while it trains: masks, fake quantization, a distillation loss.

The loop calls its modifiers in their order, and in the reverse order where they take back what they did to the weights
(``before_step``, ``finish``). So they are nested like functions: the first one is next to the weights that the
optimizer steps, the last one next to what the model computes with. What a modifier has to remember between steps is
saved with the state of the run, so that a resume gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn


class Modifier(Protocol):
    """Changes a model before, while and after it trains.

    On several devices (DDP) each rank has the whole model and a modifier of its own, which must come to the same as the
    others: it may use the model and the step, which are the same everywhere, and from ``batch``, its rank's rows, only
    what goes into the loss.
    """

    def start(self, model: nn.Module) -> None:
        """Called once, before the optimizer is made: attach masks, parametrize, load a teacher."""

    def loss(self, loss: Tensor, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss to train on, which is averaged over micro-batches and ranks by their weights.

        Args:
            loss: mean loss of ``batch``, [].
            model: the model that trains.
            batch: the rows of a micro-batch.
        """

    def before_step(self, step: int, model: nn.Module) -> None:
        """Called when the gradients of a step are complete, before their norm is taken and the optimizer steps.

        A modifier that lets the model compute with other weights than those that are trained puts these back, and turns
        the gradients of the former into gradients of the latter.

        Args:
            step: number of steps done.
        """

    def after_step(self, step: int, model: nn.Module) -> None:
        """Called after each optimizer step with the number of steps done."""

    def finish(self, model: nn.Module) -> None:
        """Called once when training is over: remove hooks, fold fake quantization."""

    def state(self) -> dict[str, Tensor]:
        """What the next steps depend on apart from the model: copies, on the CPU."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Return to what ``state`` gave."""


class BaseModifier:
    """Changes nothing: a modifier overrides what it needs."""

    def start(self, model: nn.Module) -> None: ...

    def loss(self, loss: Tensor, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return loss

    def before_step(self, step: int, model: nn.Module) -> None: ...

    def after_step(self, step: int, model: nn.Module) -> None: ...

    def finish(self, model: nn.Module) -> None: ...

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None: ...


class HoldZeros(BaseModifier):
    """Keeps weights at exactly +0 while the model trains: pruned weights stay pruned.

    Their gradients are set to 0 before the gradient norm is taken and before the optimizer sees them, so its moments
    of them stay 0, too. The zeros themselves are set again after each step. It has no state: which weights are held
    follows from the weights at the start.

    Args:
        names: parameters whose zeros are held.
        zeros: name -> the weights that are held; None: those that are 0 when training starts.
    """

    def __init__(self, names: frozenset[str], zeros: Mapping[str, Tensor] | None = None) -> None:
        self.names, self._given = names, zeros
        self._zeros: list[tuple[nn.Parameter, Tensor]] = []
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def start(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if name not in self.names:
                continue
            zeros = parameter.detach() == 0 if self._given is None else self._given[name].to(parameter.device)
            if bool(zeros.any()):
                self._zeros.append((parameter, zeros))
                self._hooks.append(parameter.register_post_accumulate_grad_hook(_zero_gradient(zeros)))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def after_step(self, step: int, model: nn.Module) -> None:
        for parameter, zeros in self._zeros:
            parameter.masked_fill_(zeros, 0.0)

    def finish(self, model: nn.Module) -> None:
        for hook in self._hooks:
            hook.remove()


class Freeze:
    """Leaves parameters as they are: they have no gradient, no optimizer moments and no weight decay.

    Args:
        names: parameters that do not train.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def start(self, model: nn.Module) -> None:
        self._set(model, does_train=False)

    def loss(self, loss: Tensor, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return loss

    def before_step(self, step: int, model: nn.Module) -> None: ...

    def after_step(self, step: int, model: nn.Module) -> None: ...

    def finish(self, model: nn.Module) -> None:
        self._set(model, does_train=True)

    def state(self) -> dict[str, Tensor]:
        """Nothing: it is the same from start to end."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None: ...

    def _set(self, model: nn.Module, does_train: bool) -> None:
        for name, parameter in model.named_parameters():
            if name in self.names:
                parameter.requires_grad_(does_train)


def _zero_gradient(zeros: Tensor) -> Callable[[Tensor], None]:
    def hook(parameter: Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad.masked_fill_(zeros, 0.0)

    return hook
