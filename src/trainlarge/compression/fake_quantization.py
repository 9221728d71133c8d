"""Training that is aware of quantization: the model computes with rounded weights, the optimizer steps the others.

Gradients pass straight through the rounding (Bengio et al. 2013, arXiv 1308.3432): the gradient at the rounded weight
is that of the unrounded one inside the range of its codes, and 0 outside. So nothing is added to the graph: the
parameters hold the rounded weights from the end of one optimizer step to the gradients of the next, and the step costs
one rounding of each matrix, however many micro-batches there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from trainlarge.compression.registry import TrainingStart
from trainlarge.compression.stored.floats import representable
from trainlarge.compression.training import Learned
from trainlarge.config.method import MatrixMethod
from trainlarge.config.recover import Recovery


class MatrixQuantizer(Protocol):
    """Rounds one matrix while it trains."""

    def start(self, values: Tensor) -> nn.Parameter | None:
        """What it learns, [n], made from the matrix at the start; None: nothing."""

    def begin(self, values: Tensor) -> None:
        """Called before the first rounding, with the matrix as it is then."""

    def rounded(self, values: Tensor) -> Tensor:
        """The matrix as it would be stored, float32."""

    def to_unrounded(self, gradient: Tensor, values: Tensor) -> None:
        """Turn the gradient at the rounded matrix into that at the unrounded one, in place.

        Args:
            gradient: as the last backward pass left it; what is learned gets its own gradient from it.
            values: the unrounded matrix, of which ``rounded`` was called last.
        """

    def scales(self) -> Tensor | None:
        """The scales that it has learned, float32 [rows, groups]; None where they follow from the matrix."""

    def state(self) -> dict[str, Tensor]:
        """What the next rounding depends on beside the matrix and the parameters of the model."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take ``state`` back; the matrix is rounded once more then."""


class Fitted:
    """Rounds by a function of the matrix alone.

    Args:
        function: matrix -> the rounded matrix, and a bool tensor of the weights that the gradient reaches (None: all).
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, Tensor | None]]) -> None:
        self._function = function
        self._is_reached: Tensor | None = None

    def start(self, values: Tensor) -> nn.Parameter | None:
        return None

    def begin(self, values: Tensor) -> None: ...

    def rounded(self, values: Tensor) -> Tensor:
        rounded, self._is_reached = self._function(values)
        return rounded

    def to_unrounded(self, gradient: Tensor, values: Tensor) -> None:
        if self._is_reached is not None:
            gradient.mul_(self._is_reached)

    def scales(self) -> Tensor | None:
        return None

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None: ...


class _Matrix:
    """A parameter that holds the rounded matrix while the model computes."""

    def __init__(self, parameter: nn.Parameter, dtype: torch.dtype, quantizer: MatrixQuantizer) -> None:
        self.parameter, self.dtype, self.quantizer = parameter, dtype, quantizer
        self.unrounded: Tensor | None = None
        """The matrix that trains; None before its first rounding."""

    def round(self) -> None:
        """Keep the matrix that trains, and put the rounded one in its place."""
        values = self.parameter.detach().clone()
        if self.unrounded is None:
            self.quantizer.begin(self._as_stored(values))
        self.unrounded = values
        rounded = self.quantizer.rounded(self._as_stored(values))
        self.parameter.copy_(rounded if self.dtype == rounded.dtype else representable(rounded, self.dtype))

    def put_back(self) -> None:
        """Put the matrix that trains back."""
        if self.unrounded is not None:
            self.parameter.copy_(self.unrounded)

    def to_unrounded(self) -> None:
        """Put it back and turn its gradient into that of the matrix that trains."""
        if self.unrounded is not None and self.parameter.grad is not None:
            self.quantizer.to_unrounded(self.parameter.grad, self._as_stored(self.unrounded))
        self.put_back()

    def _as_stored(self, values: Tensor) -> Tensor:
        """In the data type of the checkpoint, from which the trained weights will be quantized."""
        return values if values.dtype == self.dtype else values.to(self.dtype)


class QuantizeWeights:
    """Lets the model compute with rounded matrices from some step on.

    Args:
        quantizers: name of a matrix -> its data type in the checkpoint, and how it is rounded.
        begins: steps that are done when rounding begins.
        first_step: steps that are done at the start of training.
    """

    def __init__(
        self, quantizers: Mapping[str, tuple[torch.dtype, MatrixQuantizer]], begins: int, first_step: int
    ) -> None:
        self.quantizers, self.begins, self.first_step = quantizers, begins, first_step
        self._matrices: dict[str, _Matrix] = {}

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        parameters = dict(model.named_parameters())
        for index, (name, (dtype, quantizer)) in enumerate(self.quantizers.items()):
            self._matrices[name] = _Matrix(parameters[name], dtype, quantizer)
            if (learned := quantizer.start(parameters[name].detach())) is not None:
                # A parameter of the model, so that optimizer and saved states know it as any other.
                model.register_parameter(_name_of_learned(index), learned)
        self._round_if_due(self.first_step)

    def loss(self, loss: Tensor, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return loss

    @torch.no_grad()
    def before_step(self, step: int, model: nn.Module) -> None:
        for matrix in self._matrices.values():
            matrix.to_unrounded()

    @torch.no_grad()
    def after_step(self, step: int, model: nn.Module) -> None:
        self._round_if_due(step)

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        for index, matrix in enumerate(self._matrices.values()):
            matrix.put_back()
            if hasattr(model, _name_of_learned(index)):
                delattr(model, _name_of_learned(index))

    def state(self) -> dict[str, Tensor]:
        """The matrices that train, since the model has the rounded ones, and what their quantizers hold."""
        held = {name: matrix.unrounded for name, matrix in self._matrices.items() if matrix.unrounded is not None}
        for name, matrix in self._matrices.items():
            held |= {f"{name}/{entry}": tensor for entry, tensor in matrix.quantizer.state().items()}
        return {name: tensor.to("cpu", copy=True) for name, tensor in held.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, matrix in self._matrices.items():
            matrix.unrounded = None
            device, own = matrix.parameter.device, f"{name}/"
            matrix.quantizer.restore(
                {entry[len(own) :]: tensor.to(device) for entry, tensor in state.items() if entry.startswith(own)}
            )
            if name in state:
                matrix.unrounded = matrix.parameter.detach().copy_(state[name])
                matrix.round()

    def learned(self) -> Learned:
        """The learned scales."""
        scales = {
            name: scale for name, (_, quantizer) in self.quantizers.items() if (scale := quantizer.scales()) is not None
        }
        return Learned(scales={name: scale.detach().cpu() for name, scale in scales.items()})

    def _round_if_due(self, step: int) -> None:
        if step >= self.begins:
            for matrix in self._matrices.values():
                matrix.round()


def aware_of(
    method: MatrixMethod, start: TrainingStart, quantizer_of: Callable[[MatrixMethod], MatrixQuantizer]
) -> QuantizeWeights:
    """The modifier of a method that quantizes the matrices it will quantize after the training.

    Args:
        quantizer_of: a new quantizer for one matrix, by the method as it acts on that matrix.
    """
    weights = start.weights
    return QuantizeWeights(
        {
            name: (
                weights.tensors[name].dtype,
                quantizer_of(method.of_embeddings() if name in weights.embeddings else method),
            )
            for name in weights.selected(method.embeddings)
        },
        begins_at(start),
        start.first_step,
    )


def begins_at(start: TrainingStart) -> int:
    """Steps that are done when the training begins to be aware of quantization."""
    aware = start.method.aware_steps(start.steps) if isinstance(start.method, Recovery) else start.steps
    return start.first_step + start.steps - aware


def _name_of_learned(index: int) -> str:
    return f"log_scales_of_matrix_{index}"
