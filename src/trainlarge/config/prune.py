"""Methods of pruning: how weights are chosen to become zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trainlarge.config.identity import added_with
from trainlarge.config.method import Calibrated, MatrixMethod, Method, is_integer, is_real, method, normalize
from trainlarge.config.model_sizes import ModelSizes
from trainlarge.errors import UserError

LEAST_ROUND = 0.01
"""Least share of the weights that a round of iterative pruning sets to zero: each round trains, and has its state."""


@dataclass(frozen=True)
class Pruning(MatrixMethod):
    """What the methods share that set a share of the weights to zero."""

    disabled_by: ClassVar[Mapping[str, float]] = {"sparsity": 0.0}

    sparsity: float
    """Share of the weights that become zero, in [0, 1); 0 in a configuration disables the method."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("sparsity", is_real(self.sparsity) and 0 <= self.sparsity < 1, "a number in [0, 1)")
        normalize(self, sparsity=float(self.sparsity))

    def require_block(self, m: int) -> None:
        """Raise UserError unless ``sparsity`` of a block of the field ``m`` weights is a whole number of them."""
        self.require_whole("m", 2, 64)
        zeros = self.sparsity * m
        self.require("sparsity", abs(zeros - round(zeros)) < 1e-9, f"a multiple of 1/{m}, since prune.m is {m}")

    def check_columns(self, model: ModelSizes, m: int | None) -> None:
        """Raise UserError unless blocks of ``m`` weights fit into the rows of the matrices that are pruned."""
        for matrices in model.matrices:
            if m is not None and matrices.columns is not None and (self.embeddings or not matrices.are_embeddings):
                check_blocks(m, matrices.what, matrices.columns)


def check_blocks(m: int, name: str, columns: int) -> None:
    """Raise UserError unless blocks of ``m`` weights fit into the rows of a matrix.

    Args:
        name: of the matrix.
        columns: weights of a row.
    """
    if columns % m:
        raise UserError("prune.m", m, f"a divisor of the columns of every matrix; {name} has {columns}")


@method("prune", "magnitude")
@dataclass(frozen=True)
class Magnitude(Pruning):
    """Zero the weights of smallest magnitude: exactly round(sparsity * n) of n, ties by position.

    A weight of a larger sparsity's result is never zero in a smaller one's: results are nested.
    Source: Li et al. 2020 (arXiv 2002.11794), section 4, without their retraining; blocks: N:M sparsity of Mishra et
    al. 2021 (arXiv 2104.08378), with N = (1 - sparsity) M weights left, so 2:4 is sparsity 0.5 and m 4.
    """

    scope: Literal["global", "tensor", "row", "block"] = "global"
    """Where weights are ranked: over all matrices together, within each matrix, within each row (first dimension), or
    within each block of ``m`` consecutive weights of a row."""

    m: int | None = field(default=None, metadata=added_with(None))
    """Weights of a block; null for the other scopes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("scope")
        if self.scope == "block":
            self.require_block(self.m)  # type: ignore[arg-type]
        else:
            self.require("m", self.m is None, f"null for prune.scope={self.scope}, or prune.scope=block")

    def fitted(self, model: ModelSizes) -> ModelSizes:
        """As it is, where the blocks fit."""
        self.check_columns(model, self.m)
        return model

    def summary(self) -> str:
        """Such as ``prune 60 % global``."""
        where = f"{_pattern(self.sparsity, self.m)} blocks" if self.m else self.scope
        return f"prune {self.sparsity * 100:g} % {where}"


@method("prune", "iterative")
@dataclass(frozen=True)
class Iterative(Pruning):
    """Prune and train in turns: each round zeros another share of all weights by magnitude, then trains (``recover``).

    A recipe with it stands for one that prunes to ``round`` and trains, prunes to twice as much and trains, and so on,
    the last round to ``sparsity``. So all sparsities of one checkpoint share their rounds. Counts are exact in each
    round, and what was zero stays zero. Source: Li et al. 2020 (arXiv 2002.11794), section 4, in rounds of 15 %.
    """

    needs_training: ClassVar[bool] = True

    round: float = 0.15
    """Share of all weights that each round sets to zero; the last round takes what is left of ``sparsity``."""

    scope: Literal["global", "tensor", "row"] = "global"
    """Where weights are ranked: over all matrices together, within each matrix, or within each row."""

    def __post_init__(self) -> None:
        super().__post_init__()
        is_share = is_real(self.round) and LEAST_ROUND <= self.round < 1
        self.require("round", is_share, f"a number from {LEAST_ROUND} and below 1")
        self.require_one_of("scope")
        normalize(self, round=float(self.round))

    @property
    def levels(self) -> tuple[float, ...]:
        """Sparsity after each round."""
        rounds = math.ceil(round(self.sparsity / self.round, 9))
        return (*(round(number * self.round, 12) for number in range(1, rounds)), self.sparsity)

    def unfolded(self, following: Method | None) -> tuple[Method, ...]:
        """Pruning of each round, with the training between them."""
        pruned = [Magnitude(level, self.scope, embeddings=self.embeddings) for level in self.levels]
        turns = ((step, following) for step in pruned[:-1])
        return (*(step for turn in turns for step in turn if step), pruned[-1])

    def summary(self) -> str:
        """Such as ``prune 60 % global by 15 %``."""
        return f"prune {self.sparsity * 100:g} % {self.scope} by {self.round * 100:g} %"


@method("prune", "random")
@dataclass(frozen=True)
class Random(Pruning):
    """Zero weights drawn at random, exactly round(sparsity * n) of the n of each matrix: the baseline.

    One random number is drawn per weight, so results with one seed are nested over sparsities.
    """

    seed: int = 0
    """Seed of the draw."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole("seed", 0, 2**63 - 1)

    def summary(self) -> str:
        """Such as ``prune 60 % random``."""
        return f"prune {self.sparsity * 100:g} % random"


@dataclass(frozen=True)
class InLayers(Pruning, Calibrated):
    """What the methods share that prune layer by layer, by the inputs of each layer."""

    m: int | None = None
    """N:M sparsity: exactly ``sparsity`` of every ``m`` consecutive weights of a row become zero; null: no blocks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.m is not None:
            self.require_block(self.m)

    def fitted(self, model: ModelSizes) -> ModelSizes:
        """As it is, where the blocks fit."""
        self.check_columns(model, self.m)
        return model

    def summary(self) -> str:
        """Such as ``prune 50 % wanda 2:4``."""
        return f"prune {self.sparsity * 100:g} % {self.name}" + (
            f" {_pattern(self.sparsity, self.m)}" if self.m else ""
        )


@method("prune", "wanda")
@dataclass(frozen=True)
class Wanda(InLayers):
    """Zero the weights of smallest |W_ij| * ||X_j||_2 in each row of W [out, in] (or in each block of m).

    ||X_j||_2 is the norm of input j over all tokens of the calibration data. The other weights stay as they are, and
    results are nested over sparsities. Source: Sun et al. 2023 (arXiv 2306.11695), equation 1; there the inputs come
    through the layers pruned before, here from the dense model.
    """


@method("prune", "sparsegpt")
@dataclass(frozen=True)
class SparseGPT(InLayers):
    """Zero weights and correct the other weights of their row, so that the layer's output W X changes least.

    With H = X X^T / n + damping * mean(diag) * I over the n tokens and U the upper Cholesky factor of its inverse,
    columns are taken in blocks from left to right: in each block of W [out, in] the weights of smallest w^2 / U_jj^2
    become zero (or those of every m), and the error w / U_jj times row j of U is taken from the columns to the right.
    Source: Frantar and Alistarh 2023 (arXiv 2301.00774), algorithm 1, with masks chosen block by block.
    """

    damping: float = 0.01
    """Share of the mean diagonal of H that is added to it."""

    block_size: int = 128
    """Columns of a block; a multiple of ``m``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("damping", is_real(self.damping) and 0 < self.damping <= 1, "a number above 0 and up to 1")
        is_valid = is_integer(self.block_size) and self.block_size > 0 and self.block_size % (self.m or 1) == 0
        self.require("block_size", is_valid, "a whole number from 1, a multiple of prune.m")
        normalize(self, damping=float(self.damping))


def _pattern(sparsity: float, m: int) -> str:
    """Such as ``2:4``."""
    return f"{m - round(sparsity * m)}:{m}"
