"""Methods of pruning: how weights are chosen to become zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from trainlarge.config.method import Method, is_real, method


@method("prune", "magnitude")
@dataclass(frozen=True)
class Magnitude(Method):
    """Zero the weights of smallest magnitude: exactly round(sparsity * n) of n, ties by position.

    A weight of a larger sparsity's result is never zero in a smaller one's: results are nested.
    Source: Li et al. 2020 (arXiv 2002.11794), section 4, without their retraining.
    """

    off: ClassVar[Mapping[str, float]] = {"sparsity": 0.0}

    sparsity: float
    """Share of the weights that become zero, in [0, 1); a configuration's 0 is no pruning."""

    scope: Literal["global", "tensor"] = "global"
    """Where weights are ranked: over all matrices together, or within each matrix."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("sparsity", is_real(self.sparsity) and 0 <= self.sparsity < 1, "a number in [0, 1)")
        self.require("scope", self.scope in ("global", "tensor"), "one of global, tensor")
        object.__setattr__(self, "sparsity", float(self.sparsity))

    def summary(self) -> str:
        """Such as ``prune 60 % global``."""
        return f"prune {self.sparsity * 100:g} % {self.scope}"
