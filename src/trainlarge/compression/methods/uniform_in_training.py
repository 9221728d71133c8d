"""Uniform quantization while a model trains: with ranges that follow from the weights, or with learned scales (LSQ)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from trainlarge.compression.fake_quantization import Fitted, MatrixQuantizer, QuantizeWeights, aware_of
from trainlarge.compression.methods.uniform import fake_quantize, fitted, largest_code, middle_code, rounded_to_codes
from trainlarge.compression.registry import TrainingStart, while_training
from trainlarge.compression.stored.groups import by_group, per_weight, rows_of
from trainlarge.config.quantize import Uniform
from trainlarge.models.fake_quantize import usable_scale

SEARCH_EVERY = 8
"""Steps from one search of a range to the next: weights move little within them, and a search costs many roundings."""
_SEARCHED = ("mse", "percentile")
"""Ranges that are searched for, and not read off the weights."""


@while_training(Uniform)
def aware(method: Uniform, start: TrainingStart) -> QuantizeWeights:
    """Round weights as they will be stored; the gradient reaches those whose code is not clamped."""
    return aware_of(method, start, lambda of_matrix: _quantizer(cast(Uniform, of_matrix)))


def _quantizer(method: Uniform) -> MatrixQuantizer:
    if method.is_learned:
        return LearnedScales(method)
    if method.range in _SEARCHED:
        return SearchedRange(method)
    return Fitted(lambda tensor: fake_quantize(tensor, method))


class SearchedRange:
    """Rounds in a range that is searched for every ``SEARCH_EVERY`` steps and held between."""

    def __init__(self, method: Uniform) -> None:
        self.method = method
        self._found: tuple[Tensor, Tensor] | None = None
        """Scale [rows, groups] and zero point of the last search."""
        self._roundings = 0
        self._is_inside: Tensor | None = None

    def start(self, values: Tensor) -> nn.Parameter | None:
        return None

    def begin(self, values: Tensor) -> None: ...

    def rounded(self, values: Tensor) -> Tensor:
        rows = rows_of(values, self.method.granularity)
        if self._found is None or self._roundings % SEARCH_EVERY == 0:
            self._found = fitted(rows, self.method)
        self._roundings += 1
        scale, zero_point = (per_weight(part, self.method.group_size, rows.shape[1]) for part in self._found)
        rounded, is_inside = rounded_to_codes(rows, scale, zero_point, largest_code(self.method))
        self._is_inside = is_inside.view(values.shape)
        return rounded.view(values.shape)

    def to_unrounded(self, gradient: Tensor, values: Tensor) -> None:
        if self._is_inside is not None:
            gradient.mul_(self._is_inside)

    def scales(self) -> Tensor | None:
        return None

    def state(self) -> dict[str, Tensor]:
        if self._found is None:
            return {}
        # Without the last rounding, which is done again when a run resumes.
        return {"scale": self._found[0], "zero_point": self._found[1], "roundings": torch.tensor(self._roundings - 1)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._found = (state["scale"], state["zero_point"]) if state else None
        self._roundings = int(state["roundings"]) if state else 0


class LearnedScales:
    """Learned step size quantization: w' = s clamp(round(w / s), Q_n, Q_p), and s is trained with the weights.

    dw'/ds = round(w / s) - w / s inside the range, Q_n or Q_p outside, times 1 / sqrt(n Q_p) for the n weights that
    share s; s starts at 2 mean |w| / sqrt(Q_p), over the weights that are not 0. The gradient reaches w inside the
    range. Here log s is what is trained, with gradient s dw'/ds: so s stays positive, and a step of Adam, which has
    about the size of the learning rate whatever the gradient is, changes s by that share of it. It has no weight decay,
    as it is a vector.
    Source: Esser et al. 2020 (arXiv 1902.08153), equations 1 to 3, section 2.2.
    """

    def __init__(self, method: Uniform) -> None:
        self.method = method
        self.zero_point = int(middle_code(method))
        self.lowest, self.highest = -self.zero_point, largest_code(method) - self.zero_point
        """Q_n and Q_p."""
        self.log_scales = nn.Parameter(torch.zeros(0))

    def start(self, values: Tensor) -> nn.Parameter | None:
        self.log_scales = nn.Parameter(self._first(values).log().view(-1))
        return self.log_scales

    def begin(self, values: Tensor) -> None:
        self.log_scales.copy_(self._first(values).log().view(-1))

    def rounded(self, values: Tensor) -> Tensor:
        rows, scales = self._rows_and_scales(values)
        zero_point = scales.new_full((1, 1), self.zero_point)
        return rounded_to_codes(rows, scales, zero_point, largest_code(self.method))[0].view(values.shape)

    def to_unrounded(self, gradient: Tensor, values: Tensor) -> None:
        rows, scales = self._rows_and_scales(values)
        ratio = rows / scales
        is_inside = (ratio >= self.lowest) & (ratio <= self.highest)
        slope = torch.where(is_inside, ratio.round() - ratio, ratio.clamp(self.lowest, self.highest))
        of_scales = self._sums(slope.mul_(gradient.reshape(rows.shape)))
        of_scales /= (self._sums(torch.ones_like(rows)) * self.highest).sqrt_()
        self.log_scales.grad = of_scales.mul_(self.scales()).view(-1)
        gradient.mul_(is_inside.view(gradient.shape))

    def scales(self) -> Tensor:
        return self.log_scales.detach().exp().view(self._shape)

    def state(self) -> dict[str, Tensor]:
        """Nothing: the scales are a parameter of the model."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None: ...

    def _first(self, values: Tensor) -> Tensor:
        """2 mean |w| / sqrt(Q_p) of each group, [rows, groups]."""
        rows = rows_of(values, self.method.granularity)
        total, count = self._sums(rows.abs()), self._sums((rows != 0).float())
        self._shape = total.shape
        return usable_scale(2 * total / count.clamp(min=1) / math.sqrt(self.highest))

    def _sums(self, rows: Tensor) -> Tensor:
        return by_group(rows, self.method.group_size, lambda group: (group.sum(1, keepdim=True),))[0]

    def _rows_and_scales(self, values: Tensor) -> tuple[Tensor, Tensor]:
        rows = rows_of(values, self.method.granularity)
        return rows, per_weight(self.scales(), self.method.group_size, rows.shape[1])
