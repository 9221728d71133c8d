"""Activation quantization: which layers of a compressed model quantize their inputs, and in which range."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainlarge.compression.fake_quantization import begins_at
from trainlarge.compression.input_ranges import Range, Ranges, quantizers_of
from trainlarge.compression.registry import Shared, StoredTensors, TrainingStart, rounds, while_training
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.training import Learned
from trainlarge.compression.weights import Weights
from trainlarge.config.activations import ActivationQuantization, Dynamic, Static
from trainlarge.config.method import MatrixMethod
from trainlarge.models.fake_quantize import FakeQuantizer, StraightThrough, fake_quantize_inputs


@rounds(Dynamic, Static)
def input_ranges(method: ActivationQuantization, weights: Weights, stored: StoredTensors, shared: Shared) -> Ranges:
    """The layers that quantize their inputs: those with quantized weights, or all where no weights are quantized.

    None of a head that is left whole. A layer that no calibration row reaches has no static range: its inputs are not
    quantized. Ranges that a training was aware of stay.
    Raises UserError where static ranges are asked for and there is no calibration data.
    """
    quantized = {name for name, tensor in stored.items() if not isinstance(tensor, Dense)}
    return _ranges(method, weights, quantized, shared)


def _ranges(method: ActivationQuantization, weights: Weights, quantized: set[str], shared: Shared) -> Ranges:
    """As ``input_ranges``, by the names of the quantized weights."""
    linears = weights.weight_names(nn.Linear)
    in_scope = {layer: weight for layer, weight in linears.items() if not weights.is_left_alone(layer)}
    layers = [layer for layer, weight in in_scope.items() if not quantized or weight in quantized]
    if not isinstance(method, Static):
        return dict.fromkeys(layers)
    known: Mapping[str, Range] = shared.learned.ranges or shared.calibrated(method).ranges(method.calibration_rows)
    return {name: known[name] for name in layers if name in known}


@while_training(Dynamic, Static)
def aware(method: ActivationQuantization, start: TrainingStart) -> QuantizeInputs:
    """Quantize inputs as the compressed model will; static ranges are those of the weights at the start."""
    quantized = {
        name
        for part in start.others
        if isinstance(part, MatrixMethod) and part.slot == "quantize"
        for name in start.weights.selected(part.embeddings)
    }
    ranges = _ranges(method, start.weights, quantized, start.shared)
    return QuantizeInputs(quantizers_of(method, ranges), ranges, begins_at(start), start.first_step)


class QuantizeInputs:
    """Lets linear layers quantize their inputs from some step on, with gradients that pass straight through.

    Args:
        quantizers: name of a layer -> how its inputs are quantized.
        ranges: name of a layer -> its fixed range; None where each token has its own.
        begins: steps that are done when it begins.
        first_step: steps that are done at the start of training.
    """

    def __init__(self, quantizers: Mapping[str, FakeQuantizer], ranges: Ranges, begins: int, first_step: int) -> None:
        self.quantizers = {name: StraightThrough(quantizer) for name, quantizer in quantizers.items()}
        self.ranges, self.begins, self.first_step = ranges, begins, first_step
        self._model: nn.Module | None = None
        self._is_on = False

    def start(self, model: nn.Module) -> None:
        self._model = model
        self._set(self.first_step >= self.begins)

    def loss(self, loss: Tensor, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return loss

    def before_step(self, step: int, model: nn.Module) -> None: ...

    def after_step(self, step: int, model: nn.Module) -> None:
        if step == self.begins:
            self._set(True)

    def finish(self, model: nn.Module) -> None:
        self._set(False)

    def state(self) -> dict[str, Tensor]:
        return {"is_on": torch.tensor(self._is_on)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._set(bool(state["is_on"]))

    def _set(self, is_on: bool) -> None:
        self._is_on = is_on
        if self._model is not None:
            fake_quantize_inputs(self._model, self.quantizers if is_on else {})

    def learned(self) -> Learned:
        """The fixed ranges."""
        return Learned(ranges={name: range_ for name, range_ in self.ranges.items() if range_ is not None})
