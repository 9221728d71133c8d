"""Methods of pruning: how weights are chosen to become zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trainlarge.config.identity import added_with
from trainlarge.config.method import Calibrated, MatrixMethod, Method, is_integer, is_real, method, normalize
from trainlarge.config.model_sizes import ModelSizes
from trainlarge.config.recover import Recovery
from trainlarge.errors import UserError

LEAST_ROUND = 0.01
"""Least share of the weights that a round of iterative pruning sets to zero: each round trains, and has its state."""


@dataclass(frozen=True)
class Zeroing(MatrixMethod):
    """What all methods share that set weights to zero."""

    strength: ClassVar[str] = "sparsity"
    """The field that is too large where nothing is left."""


@dataclass(frozen=True)
class Pruning(Zeroing):
    """What the methods share that set a given share of the weights to zero."""

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
        between = following.between_rounds() if isinstance(following, Recovery) else following
        turns = ((step, between) for step in pruned[:-1])
        return (*(step for turn in turns for step in turn if step), pruned[-1])

    def summary(self) -> str:
        """Such as ``prune 60 % global by 15 %``."""
        return f"prune {self.sparsity * 100:g} % {self.scope} by {self.round * 100:g} %"


@dataclass(frozen=True)
class Rising(MatrixMethod):
    """What the methods share that prune while the model trains (``recover``), more and more along a cube.

    After t of T steps the share (1 - (1 - (t - w) / (T - w - c))^3) of the way is done, with w = warmup T steps before
    pruning begins and c = cooldown T steps after it ends. Source: Zhu and Gupta 2017 (arXiv 1710.01878), equation 1;
    the two warm-ups as in Sanh et al. 2020 (arXiv 2005.07683).
    """

    needs_training: ClassVar[bool] = True
    while_training: ClassVar[bool] = True

    warmup: float = field(default=0.25, kw_only=True)
    """Share of the steps before pruning begins."""

    cooldown: float = field(default=0.25, kw_only=True)
    """Share of the steps after pruning has come to its end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("warmup", is_real(self.warmup) and 0 <= self.warmup < 1, "a number in [0, 1)")
        is_share = is_real(self.cooldown) and self.cooldown >= 0 and self.warmup + self.cooldown < 1
        self.require("cooldown", is_share, f"at least 0, and below 1 together with {self.slot}.warmup={self.warmup:g}")
        normalize(self, warmup=float(self.warmup), cooldown=float(self.cooldown))

    def check_training(self, recover: Method) -> None:
        """Refuse a training that keeps the weights of its best score: those are the ones that are pruned least."""
        if isinstance(recover, Recovery) and recover.dense_share is not None:
            allowed = f"a fixed length with {self.slot}.name={self.name}, which prunes more and more on the way"
            raise UserError("recover.budget", recover.budget, allowed)

    def ramp(self, steps: int) -> tuple[int, int]:
        """Steps after which pruning begins, and has come to its end; the latter at least one later."""
        begin = min(round(self.warmup * steps), steps - 1)
        return begin, max(begin + 1, steps - round(self.cooldown * steps))

    def done_after(self, done: int, steps: int) -> float:
        """Share of the way after ``done`` of ``steps`` steps: exactly 0 until pruning begins, exactly 1 at its end."""
        begin, end = self.ramp(steps)
        return 1 - (1 - min(max((done - begin) / (end - begin), 0.0), 1.0)) ** 3


@method("prune", "gradual")
@dataclass(frozen=True)
class Gradual(Rising, Pruning):
    """Prune by magnitude while the model trains (``recover``): the sparsity rises along a cube.

    After t of T steps it is sparsity (1 - (1 - (t - w) / (T - w - c))^3), with w = warmup T steps before pruning
    begins and c = cooldown T steps after it ends. Counts are exact each time that zeros are chosen, and what was zero
    stays zero. Source: Zhu and Gupta 2017 (arXiv 1710.01878), equation 1.
    """

    scope: Literal["global", "tensor", "row"] = "global"
    """Where weights are ranked: over all matrices together, within each matrix, or within each row."""

    every: int = 10
    """Steps from one choice of zeros to the next."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("scope")
        self.require_whole("every", 1)

    def prunes_after(self, done: int, steps: int) -> bool:
        """Whether zeros are chosen after ``done`` steps: every so often, and when the full sparsity is reached."""
        begin, end = self.ramp(steps)
        return done == end or (begin < done < end and (done - begin) % self.every == 0)

    def summary(self) -> str:
        """Such as ``prune 60 % global gradually``."""
        return f"prune {self.sparsity * 100:g} % {self.scope} gradually"


@dataclass(frozen=True)
class Scored(Rising):
    """What the methods share that learn while the model trains which weights stay: a score S per weight.

    The model computes with W' = W M for the mask M of the weights that stay. Gradients pass straight through the choice
    of M (Bengio et al. 2013, arXiv 1308.3432): that of S is dL/dW' W, that of W is dL/dW' M. S starts at 0 and is
    trained by Adam without weight decay. A weight that does not take part now keeps its value, and may come back.
    """

    scores_lr: float = field(default=0.01, kw_only=True)
    """Learning rate of the scores at the peak; it falls as that of the weights. Adam moves a score by about as much per
    step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        is_valid = is_real(self.scores_lr) and 0 < self.scores_lr < math.inf
        self.require("scores_lr", is_valid, "a positive number")
        normalize(self, scores_lr=float(self.scores_lr))

    def check_training(self, recover: Method) -> None:
        """Refuse also a training that leaves matrices as they are."""
        super().check_training(recover)
        if isinstance(recover, Recovery) and recover.trains != "all":
            raise UserError("recover.trains", recover.trains, f"all with prune.name={self.name}, which trains masks")


@dataclass(frozen=True)
class TopScores(Scored, Pruning):
    """What the methods share that keep the weights of the highest scores, exactly as many as the sparsity leaves."""

    scope: Literal["global", "tensor"] = "global"
    """Where scores are ranked: over all matrices together, or within each matrix."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("scope")

    def summary(self) -> str:
        """Such as ``prune 60 % global by movement``."""
        return f"prune {self.sparsity * 100:g} % {self.scope} by {self.name}"


@method("prune", "movement")
@dataclass(frozen=True)
class Movement(TopScores):
    """Prune while the model trains (``recover``) the weights that training moves towards 0: movement pruning.

    Weights and scores train together, S by the gradient dL/dW' W, so S is high where weights grow away from 0. The
    share of the weights that stay falls along the cube of ``gradual``, exactly; the mask follows the scores to the last
    step. Source: Sanh et al. 2020 (arXiv 2005.07683), section 4, hard movement pruning with a mask of the top v.
    """


@method("prune", "adapt")
@dataclass(frozen=True)
class Adapt(TopScores):
    """Train nothing but masks (``recover``): weights that stay are those of the checkpoint, bit by bit.

    Which weights stay is learned as in ``movement``, with all weights, norms and biases held, and scores that start at
    the magnitudes of the weights over their mean. ``recover.lr`` is not used. Source: Gao et al. 2021, *Adapting by
    pruning* (arXiv 2105.03343), which chooses a mask for weights that stay as they are; here by scores with
    straight-through gradients.
    """


@method("prune", "soft_movement")
@dataclass(frozen=True)
class SoftMovement(Scored, Zeroing):
    """Prune while the model trains (``recover``) the weights whose score falls below a threshold: soft movement.

    A weight stays where sigmoid(S) > t; the loss grows by r mean(sigmoid(S)) over all scores. Both t and r rise along
    the cube of ``gradual``, to ``threshold`` and ``regularization``. How many weights are pruned is found and not set:
    the column ``sparsity`` has it. A score starts at 0, and is pruned at log(t / (1 - t)), -2.2 for a threshold of 0.1:
    ``scores_lr`` times the steps of ``recover`` must reach it. Source: Sanh et al. 2020 (arXiv 2005.07683), section 4.
    """

    disabled_by: ClassVar[Mapping[str, float]] = {"threshold": 0.0}
    strength: ClassVar[str] = "regularization"

    threshold: float
    """Threshold of sigmoid(S) in the end, in [0, 0.5), 0.1 in the paper; 0 in a configuration disables the method."""

    regularization: float = 100.0
    """Weight of the mean of sigmoid(S) in the loss in the end; larger prunes more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("threshold", is_real(self.threshold) and 0 <= self.threshold < 0.5, "a number in [0, 0.5)")
        is_valid = is_real(self.regularization) and 0 <= self.regularization < math.inf
        self.require("regularization", is_valid, "a number from 0")
        normalize(self, threshold=float(self.threshold), regularization=float(self.regularization))

    def summary(self) -> str:
        """Such as ``prune by soft_movement at 0.1 with 100``."""
        return f"prune by {self.name} at {self.threshold:g} with {self.regularization:g}"


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
