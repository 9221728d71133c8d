"""Methods of structured pruning: which heads, neurons or layers are removed physically, so that matrices shrink.

The model that is left gives the logits of the whole one with those units masked. At least one unit stays in each
layer, and at least one layer: a block without any has no shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from trainlarge.config.method import Method, is_integer, is_real, method, normalize
from trainlarge.config.model_sizes import ModelSizes
from trainlarge.config.reads import read_with
from trainlarge.errors import UserError

KNOWN_LAYERS = "used for a model with one list of BERT, ModernBERT or DistilBERT layers"
"""What is wrong with a model whose layers are not known, as an error says it."""
Importance = Literal["weight", "gradient"]


@dataclass(frozen=True)
class Structured(Method):
    """What methods share that act on known layers."""

    def require_layers(self, model: ModelSizes) -> None:
        """Raise UserError for a model whose layers are not known."""
        if not model.has_known_layers:
            raise UserError(f"{self.slot}.name={self.name}", model.architecture, KNOWN_LAYERS)


@dataclass(frozen=True)
class Units(Structured):
    """What heads and neurons share: units that are side by side in each layer, the least important removed.

    ``importance: weight`` is the product of the norms of what leads into a unit and out of it, which needs no data.
    ``importance: gradient`` is I = mean over rows |dL / d gate| with a gate of 1 on the unit's output, over calibration
    rows, divided by the norm of the layer's I (Michel et al. 2019, arXiv 1905.10650, eq. 2 and section 4).
    """

    disabled_by: ClassVar[Mapping[str, float]] = {"keep": 1.0}

    keep: float
    """Share of the units that stays, in (0, 1]; 1 in a configuration disables the method."""

    scope: Literal["global", "layer"] = "layer"
    """Where units are ranked: over all layers together (layers then differ in shape), or within each layer."""

    importance: Importance = "weight"
    """What they are ranked by: ``weight``, or ``gradient`` on calibration data."""

    calibration_rows: int = field(default=128, metadata=read_with(importance="gradient"))
    """Rows of calibration data, where importance is by gradient."""

    def __post_init__(self) -> None:
        self.require("keep", is_real(self.keep) and 0 < self.keep <= 1, "a number in (0, 1]")
        self.require_one_of("scope")
        self.require_one_of("importance")
        self.require_whole("calibration_rows", 1)
        normalize(self, keep=float(self.keep))

    def fitted(self, model: ModelSizes) -> ModelSizes:
        """With fewer columns in the matrices that lead out of the units."""
        self.require_layers(model)
        units = model.units.get(self.name)
        if units is None:
            return model.with_columns((one.what for one in model.matrices), None)
        if self.scope == "global":
            others = {name: other for name, other in model.units.items() if name != self.name}
            return replace(model.with_columns([units.output], None), units=others)
        left = replace(units, count=kept_units(self.keep, units.count))
        cut = model.with_columns([units.output], left.count * left.width)
        return replace(cut, units={**model.units, self.name: left})

    def summary(self) -> str:
        """Such as ``keep 50 % of heads by weight layer``."""
        return f"keep {self.keep * 100:g} % of {self.name} by {self.importance} {self.scope}"


def kept_units(share: float, count: int) -> int:
    """How many of ``count`` units that are ranked together stay, where a share of them does: at least one."""
    return max(1, round(share * count))


@method("structure", "heads")
@dataclass(frozen=True)
class Heads(Units):
    """Remove attention heads (Michel et al. 2019, arXiv 1905.10650), without retraining.

    Importance by weight of head h: ||W_out^h W_value^h||_F [width x width], the size of the map from inputs to outputs
    that the head weighs with its attention; it does not depend on how the two matrices share their scale.
    """


@method("structure", "neurons")
@dataclass(frozen=True)
class Neurons(Units):
    """Remove inner neurons of the feed-forward blocks, without retraining.

    Importance by weight of neuron j: ||row j of W_in|| ||row j of W_gate|| ||column j of W_out||, without the gate
    where there is none: filter norms (Li et al. 2017, arXiv 1608.08710) made independent of how the matrices share
    their scale. By gradient it is the first-order Taylor criterion (Molchanov et al. 2017, arXiv 1611.06440).
    """


Choice = Literal["top", "bottom", "alternate", "symmetric", "contribution"]


@method("structure", "layers")
@dataclass(frozen=True)
class Layers(Structured):
    """Remove whole layers (Sajjad et al. 2020, *Poor Man's BERT*, arXiv 2004.03844), without retraining.

    Of N layers n = max(1, round(keep N)) stay. ``top`` removes the last ones, ``bottom`` the first ones, ``alternate``
    every second one from the last but one down (then the others, from the last down), ``symmetric`` those in the
    middle, ``contribution`` those whose output is closest to their input: the largest mean cosine over the tokens of
    the calibration rows.
    """

    disabled_by: ClassVar[Mapping[str, float]] = {"keep": 1.0}

    keep: float
    """Share of the layers that stays, in (0, 1]; 1 in a configuration disables the method."""

    choice: Choice = "top"
    """Which layers are removed."""

    calibration_rows: int = field(default=128, metadata=read_with(choice="contribution"))
    """Rows of calibration data, where the choice is by contribution."""

    def __post_init__(self) -> None:
        self.require("keep", is_real(self.keep) and 0 < self.keep <= 1, "a number in (0, 1]")
        self.require_one_of("choice")
        self.require_whole("calibration_rows", 1)
        normalize(self, keep=float(self.keep))

    def kept(self, depth: int) -> int:
        """How many layers stay of ``depth``."""
        return kept_units(self.keep, depth)

    def fitted(self, model: ModelSizes) -> ModelSizes:
        """With fewer layers."""
        self.require_layers(model)
        return model if model.layers is None else replace(model, layers=self.kept(model.layers))

    def summary(self) -> str:
        """Such as ``keep 50 % of layers, top removed``."""
        return f"keep {self.keep * 100:g} % of layers, {self.choice} removed"


@method("structure", "layer_list")
@dataclass(frozen=True)
class LayerList(Structured):
    """Keep the layers of a list, such as 1, 3, 5, 7, 9, 11 of 12 (XTC, Wu et al. 2022, arXiv 2206.01859)."""

    layers: tuple[int, ...]
    """Numbers of the layers that stay, from 0 up, each larger than the one before."""

    def __post_init__(self) -> None:
        numbers = whole_numbers(self.layers)
        is_rising = bool(numbers) and list(numbers) == sorted(set(numbers)) and numbers[0] >= 0
        self.require("layers", is_rising, "a rising list of layer numbers from 0 up, at least one")
        normalize(self, layers=numbers)

    def check_depth(self, depth: int) -> None:
        """Raise UserError unless a model of ``depth`` layers has all of them."""
        self.require("layers", self.layers[-1] < depth, f"numbers from 0 to {depth - 1}, the layers there are")

    def fitted(self, model: ModelSizes) -> ModelSizes:
        """With the listed layers."""
        self.require_layers(model)
        if model.layers is not None:
            self.check_depth(model.layers)
        return replace(model, layers=len(self.layers))

    def summary(self) -> str:
        """Such as ``layers 1 3 5``."""
        return f"layers {' '.join(map(str, self.layers))}"


def whole_numbers(values: object) -> tuple[int, ...]:
    """A list of whole numbers as a tuple; empty for anything else."""
    if not isinstance(values, (list, tuple)) or not all(map(is_integer, values)):
        return ()
    return tuple(map(int, values))
