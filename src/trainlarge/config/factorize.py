"""Methods of factorization: a matrix becomes the product of two thinner ones, which are what is stored and computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from trainlarge.config.method import MatrixMethod, is_real, method, normalize
from trainlarge.config.model_sizes import ModelSizes


@dataclass(frozen=True)
class Factorization(MatrixMethod):
    """What the methods share: matrices become pairs of factors, unless these would be larger."""

    def fitted(self, model: ModelSizes) -> ModelSizes:
        """With columns that are known of embeddings alone, where they stay whole."""
        factorized = (one.what for one in model.matrices if self.embeddings or not one.are_embeddings)
        return model.with_columns(factorized, None)


@method("factorize", "svd")
@dataclass(frozen=True)
class LowRank(Factorization):
    """Replace W [m, n] by U D with U [m, r], D [r, n]: the truncated singular value decomposition.

    It is the best approximation of rank r (Eckart & Young 1936); both factors have the roots of the singular values.

    ||W - U D||_F^2 is the sum of the squares of the singular values left out. It acts on linear layers and, with
    ``embeddings``, on the token embedding (a tied output matrix with it: one pair for both, as in ALBERT, Lan et al.
    2020, arXiv 1909.11942); the table that encoder and decoder of a model share stays whole. A matrix that
    two factors would not make smaller, r (m + n) >= m n, stays whole, too.
    """

    disabled_by: ClassVar[Mapping[str, float]] = {"keep": 1.0}

    keep: float
    """How much stays, in (0, 1]; 1 in a configuration disables the method."""

    by: Literal["parameters", "energy"] = "parameters"
    """What ``keep`` is a share of: ``parameters`` of each matrix, r = max(1, floor(keep m n / (m + n))), or its
    ``energy``, the smallest r whose squared singular values sum to that share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("keep", is_real(self.keep) and 0 < self.keep <= 1, "a number in (0, 1]")
        self.require_one_of("by")
        normalize(self, keep=float(self.keep))

    def summary(self) -> str:
        """Such as ``svd 50 % of parameters``."""
        return f"svd {self.keep * 100:g} % of {self.by}"


@method("factorize", "svd_rank")
@dataclass(frozen=True)
class FixedRank(Factorization):
    """As ``svd``, with one rank for all matrices."""

    rank: int
    """Rank of every product, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole("rank", 1)
        normalize(self, rank=int(self.rank))

    def summary(self) -> str:
        """Such as ``svd of rank 32``."""
        return f"svd of rank {self.rank}"
