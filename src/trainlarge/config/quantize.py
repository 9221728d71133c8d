"""Methods of quantization: how the weights that are left are rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from trainlarge.config.granularity import Granularity, check_granularity, groups_text, normalize_channel
from trainlarge.config.identity import added_with
from trainlarge.config.method import BITS_IN_CONFIGURATION, Calibrated, MatrixMethod, is_real, method, normalize
from trainlarge.config.reads import read_with

PERCENTILE = 99.9
"""Percentile of a range where none is given."""
SIGMA = 3.0
"""Standard deviations on either side of the mean that a range reaches where none are given."""


@method("quantize", "uniform")
@dataclass(frozen=True)
class Uniform(MatrixMethod):
    """Round weights to 2^bits equally spaced values, without retraining.

    Asymmetric: scale = (max - min) / (2^bits - 1), zero_point = round(-min / scale), code = clamp(round(w / scale) +
    zero_point, 0, 2^bits - 1), w' = scale * (code - zero_point), with the range [min, max] widened to hold 0: affine
    quantization with a whole-number zero point, which keeps a pruned weight exactly 0. Source: Jacob et al. 2018 (arXiv
    1712.05877), section 2.1; GPTQ (arXiv 2210.17323). The quantizer of Li et al. 2020 is ``MinMax``.
    Symmetric: scale = max |w| / (2^(bits-1) - 1), w' = scale * round(w / scale), clamped to that range.
    """

    while_training: ClassVar[bool] = True
    disabled_by: ClassVar[Mapping[str, float]] = {"bits": 32}
    enabled_by: ClassVar[Mapping[str, float]] = {"bits": 8}

    bits: int
    """Bits per code, 2 to 8; 32 in a configuration disables the method."""

    granularity: Granularity = "row"
    """What shares one scale and one zero point: the whole matrix, one row (first dimension; also called ``channel``),
    or ``group_size`` consecutive weights of a row (Q-BERT, arXiv 1909.05840)."""

    symmetric: bool = False
    """Whether the range is symmetric around 0, which leaves one of the 2^bits values unused."""

    group_size: int | None = field(default=None, metadata={**added_with(None), **read_with(granularity="group")})
    """Weights of a group, 64 where none is given; the last group of a row may be shorter. Null for other
    granularities."""

    range: Literal["minmax", "percentile", "mse", "sigma", "learned"] = field(
        default="minmax", metadata=added_with("minmax")
    )
    """Range of the values of a group: from the smallest to the largest weight; without the weights beyond a percentile;
    that share (1, 0.98, ... 0.2) of the whole range whose squared error is least; ``sigma`` standard deviations on
    either side of the mean of the weights that are not 0, wherever the smallest and the largest are; or learned by
    gradient descent in the training before, which has to be aware of quantization (LSQ, Esser et al. 2020, arXiv
    1902.08153). Weights beyond it are clamped."""

    percentile: float | None = field(default=None, metadata={**added_with(None), **read_with(range="percentile")})
    """Percentile p of ``range: percentile``, 99.9 where none is given: the weights of rank round((1 - p/100) (n - 1))
    from either end limit the range. Null for other ranges."""

    embedding_bits: int | None = field(
        default=None, kw_only=True, metadata={**added_with(None), **read_with(embeddings=True)}
    )
    """Bits per code of the embedding matrices, 2 to 8; null: ``bits``, as for all others. It has no effect where
    embeddings are not quantized."""

    sigma: float | None = field(default=None, kw_only=True, metadata={**added_with(None), **read_with(range="sigma")})
    """Standard deviations k of ``range: sigma``, 3 where none is given. For normal weights the codes have about
    bits - log2(k) + 1.05 bits of entropy, so k and ``bits`` trade error against bytes where codes are entropy-coded;
    squared error is least at about 2.1 (3 bits), 2.5 (4) and 3.3 (6; Max 1960). Null for other ranges."""

    embedding_sigma: float | None = field(
        default=None, kw_only=True, metadata={**added_with(None), **read_with(range="sigma", embeddings=True)}
    )
    """Standard deviations of the ranges of embedding matrices; null: ``sigma``, as for all others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole("bits", 2, 8, BITS_IN_CONFIGURATION)
        check_granularity(self)
        self.require("symmetric", isinstance(self.symmetric, bool), "true or false")
        self.require_one_of("range")
        # Methods that do not act while a model trains inherit this field.
        is_possible = self.while_training or not self.is_learned
        self.require("range", is_possible, f"minmax, percentile, mse or sigma with quantize.name={self.name}")
        self._check_percentile()
        self._check_sigma()
        normalize(self, bits=int(self.bits))
        self._check_embedding_bits()

    def _check_percentile(self) -> None:
        percentile = PERCENTILE if self.percentile is None else self.percentile
        is_valid = is_real(percentile) and 50 < percentile <= 100
        self.require("percentile", is_valid, "a number above 50 and up to 100")
        normalize(self, percentile=float(percentile) if self.range == "percentile" else None)

    def _check_sigma(self) -> None:
        for name in ("sigma", "embedding_sigma"):
            value = getattr(self, name)
            is_valid = value is None or (is_real(value) and 0 < value <= 100)
            self.require(name, is_valid, "a number above 0 and up to 100")
        is_read = self.range == "sigma"
        sigma = float(SIGMA if self.sigma is None else self.sigma) if is_read else None
        of_embeddings = float(self.embedding_sigma) if self.embedding_sigma and self.embeddings and is_read else None
        normalize(self, sigma=sigma, embedding_sigma=None if of_embeddings == sigma else of_embeddings)

    def _check_embedding_bits(self) -> None:
        if self.embedding_bits is None:
            return
        self.require_whole("embedding_bits", 2, 8)
        bits = int(self.embedding_bits)
        normalize(self, embedding_bits=bits if self.embeddings and bits != self.bits else None)

    @property
    def is_learned(self) -> bool:
        """Whether its ranges are learned in training."""
        return self.range == "learned"

    def of_embeddings(self) -> Uniform:
        """With the bits and standard deviations of the embeddings for all."""
        if self.embedding_bits is None and self.embedding_sigma is None:
            return self
        bits, sigma = self.embedding_bits or self.bits, self.embedding_sigma or self.sigma
        return replace(self, bits=bits, sigma=sigma, embedding_bits=None, embedding_sigma=None)

    def describe(self) -> str:
        """As for every method, with what the embeddings have of their own."""
        bits = [] if self.embedding_bits is None else [f"{self.embedding_bits} bit"]
        own = " ".join([*bits, *([] if self.embedding_sigma is None else [f"sigma {self.embedding_sigma:g}"])])
        return f"{self.summary()}, embeddings {own}" if own else super().describe()

    def summary(self) -> str:
        """Such as ``4 bit row`` or ``4 bit row sigma 2.5``."""
        range_ = "" if self.range == "minmax" else f" {self.range}"
        sigma = "" if self.sigma is None else f" {self.sigma:g}"
        return f"{self.bits} bit {groups_text(self)}" + (" symmetric" if self.symmetric else "") + range_ + sigma


@method("quantize", "min_max")
@dataclass(frozen=True)
class MinMax(MatrixMethod):
    """Round weights to 2^bits equally spaced values from the smallest to the largest of a group, without retraining.

    scale = (max - min) / (2^bits - 1), code = round((w - min) / scale), w' = scale * code + min: both ends of the range
    are met exactly, the offset is no whole number of scales, and the range need not hold 0. Source: Li et al. 2020
    (arXiv 2002.11794), section 4, with 4 to 8 bits; the paper does not say whether a range is per tensor or per row.
    In general no code stands for 0. So a weight that is 0 (a pruned one) stays 0, does not count for the range, and is
    left out of the file by an index, whose bytes count.
    """

    while_training: ClassVar[bool] = True
    disabled_by: ClassVar[Mapping[str, float]] = {"bits": 32}
    enabled_by: ClassVar[Mapping[str, float]] = {"bits": 8}

    bits: int
    """Bits per code, 2 to 8; 32 in a configuration disables the method."""

    granularity: Granularity = "row"
    """What shares one range; as in ``Uniform``, and so for the key below."""

    group_size: int | None = field(default=None, metadata=read_with(granularity="group"))
    """Weights of a group."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole("bits", 2, 8, BITS_IN_CONFIGURATION)
        check_granularity(self)
        normalize(self, bits=int(self.bits))

    def summary(self) -> str:
        """Such as ``4 bit row min_max``."""
        return f"{self.bits} bit {groups_text(self)} min_max"


@method("quantize", "outliers")
@dataclass(frozen=True)
class Outliers(Uniform):
    """Keep the weights of largest magnitude in full and round the others as ``Uniform`` does.

    Exactly round(share * n) of the n of each matrix are kept (ties: the first ones are rounded), and no outlier
    stretches the ranges of the others.

    The file holds the outliers with their positions in a table of its own. Source: GOBO, Zadeh et al. 2020 (arXiv
    2005.03842), which keeps what is unlikely under a normal distribution and rounds the rest to a codebook; SpQR,
    Dettmers et al. 2023 (arXiv 2306.03078).
    """

    while_training: ClassVar[bool] = False

    share: float = 0.01
    """Share of the weights of a matrix that are kept, in [0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("share", is_real(self.share) and 0 <= self.share < 1, "a number in [0, 1)")
        normalize(self, share=float(self.share))

    def summary(self) -> str:
        """Such as ``4 bit row outliers 1 %``."""
        return f"{super().summary()} outliers {self.share * 100:g} %"


@method("quantize", "repaired")
@dataclass(frozen=True)
class LowRankRepair(Uniform):
    """Round as ``Uniform`` does, and add what of its error two thin matrices can hold: W' = Q + A B.

    A [out, rank] and B [rank, in], kept as float16, are the approximation of W - Q of least squared error of this rank
    (Eckart and Young 1936); their 16 rank (out + in) bits count in the file. With more ``rounds``, W - A B is rounded
    and the rest approximated again; the round of least error is kept, or rounding alone where that has less. A pruned
    weight stays 0, and tensors of more than two dimensions are only rounded. Source: LQER, Zhang et al. 2024 (arXiv
    2402.02446), without its scaling by activations; rounds: LoftQ, Li et al. 2023 (arXiv 2310.08659), algorithm 1.
    """

    while_training: ClassVar[bool] = False

    rank: int = 4
    """Rank of A B; that of the matrix where it is less."""

    rounds: int = 1
    """How often a matrix is rounded and its error approximated, up to 100."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole("rank", 1)
        self.require_whole("rounds", 1, 100)

    def summary(self) -> str:
        """Such as ``4 bit row repaired rank 4``."""
        return f"{super().summary()} repaired rank {self.rank}" + (f" {self.rounds} rounds" if self.rounds > 1 else "")


@method("quantize", "gptq")
@dataclass(frozen=True)
class GPTQ(Uniform, Calibrated):
    """Round column by column and correct the columns to the right, so that the output W X changes least.

    Scale and zero point of each group are those of ``Uniform``. With H = X X^T / n + damping * mean(diag) * I over the
    n tokens and U the upper Cholesky factor of its inverse, the error (w - w') / U_jj of column j of W [out, in] times
    row j of U is taken from the columns to the right. A pruned weight stays 0.
    Source: Frantar et al. 2022 (arXiv 2210.17323), algorithm 1, columns in their order, ranges fixed before the start.
    """

    while_training: ClassVar[bool] = False

    damping: float = 0.01
    """Share of the mean diagonal of H that is added to it."""

    tied: bool = field(default=False, kw_only=True, metadata={**added_with(False), **read_with(embeddings=True)})
    """Whether an embedding matrix that is also the output layer is corrected too, by the inputs of that layer. Other
    embeddings are rounded to the nearest values: a row is read as it is, so no column can make up for another."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("damping", is_real(self.damping) and 0 < self.damping <= 1, "a number above 0 and up to 1")
        self.require("tied", isinstance(self.tied, bool), "true or false")
        normalize(self, damping=float(self.damping), tied=self.tied and self.embeddings)

    def summary(self) -> str:
        """Such as ``4 bit row gptq``."""
        return f"{super().summary()} gptq" + (" tied" if self.tied else "")


@method("quantize", "mixed")
@dataclass(frozen=True)
class Mixed(Calibrated):
    """Round each matrix as ``Uniform`` does, with as many bits as it needs: 2 to 8, ``bits`` of them on average.

    ``sensitivity: layer``: a matrix W is as sensitive at b bits as its own output W X is wrong: e(b) = tr((W' - W) H
    (W' - W)^T) / tr(W H W^T), with H = X X^T / n over the n tokens (the unit matrix where there are no inputs, as for
    embeddings). What that error does to the model's output is not in it.
    ``sensitivity: model``: e(b) = mean KL(p || p') in nats, p the token probabilities that the model predicts before
    anything is rounded and p' those with this matrix alone rounded to b bits, over the positions of the calibration
    rows that have a label (all where there are no labels). It takes a pass over these rows for every matrix and b.
    The matrix whose e falls most for each bit of the file gets one bit more, as long as the average over all weights is
    at most ``bits``: from 2 bits each, from the whole number below ``bits``, and for ``model`` also from 8 bits each
    after those that cost least were taken away; whichever ends with the smallest sum of e.
    Source: Hessian-aware mixed precision, Dong et al. 2019 (HAWQ, arXiv 1905.03696) and Shen et al. 2020 (Q-BERT, arXiv
    1909.05840), which estimate the loss by an eigenvalue; the divergence of outputs as sensitivity: Cai et al. 2020
    (ZeroQ, arXiv 2001.00281), equation 5. Both are measured here, one matrix at a time.
    """

    disabled_by: ClassVar[Mapping[str, float]] = {"bits": 32}
    enabled_by: ClassVar[Mapping[str, float]] = {"bits": 8}

    bits: float
    """Average bits per code over all weights, 2 to 8; 32 in a configuration disables the method."""

    granularity: Granularity = "row"
    """As in ``Uniform``, and so for the keys below."""

    symmetric: bool = False
    """Whether ranges are symmetric around 0."""

    group_size: int | None = field(default=None, metadata=read_with(granularity="group"))
    """Weights of a group."""

    sensitivity: Literal["layer", "model"] = field(default="layer", metadata=added_with("layer"))
    """Where the error of rounding a matrix is measured: at the output of its layer, or at that of the model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("sensitivity")
        self.require("bits", is_real(self.bits) and 2 <= self.bits <= 8, f"a number from 2 to 8{BITS_IN_CONFIGURATION}")
        check_granularity(self)
        self.require("symmetric", isinstance(self.symmetric, bool), "true or false")
        normalize(self, bits=float(self.bits))

    def uniform(self, bits: int) -> Uniform:
        """How a matrix is rounded to ``bits`` bits."""
        return Uniform(bits, self.granularity, self.symmetric, self.group_size)

    def summary(self) -> str:
        """Such as ``3.5 bit row mixed``."""
        where = " by model" if self.sensitivity == "model" else ""
        return f"{self.bits:g} bit {groups_text(self)}" + (" symmetric" if self.symmetric else "") + f" mixed{where}"


@method("quantize", "kmeans")
@dataclass(frozen=True)
class KMeans(MatrixMethod):
    """Round weights to 2^bits values of least squared error, found by k-means (Lloyd) from evenly spaced ones.

    Where a matrix (or row) holds zeros, the value nearest to 0 is fixed to be 0, so that a pruned weight stays 0.
    Source: Han et al. 2016, Deep Compression (arXiv 1510.00149), section 3, with their linear initialisation, without
    their retraining. For normal weights it is the Lloyd-Max quantizer.
    """

    disabled_by: ClassVar[Mapping[str, float]] = {"bits": 32}
    enabled_by: ClassVar[Mapping[str, float]] = {"bits": 8}

    bits: int
    """Bits per code, 1 to 8; 32 in a configuration disables the method."""

    granularity: Literal["tensor", "row", "channel"] = "tensor"
    """What shares one codebook: the whole matrix, or one row (``channel`` is another word for it)."""

    iterations: int = 100
    """Rounds of Lloyd's algorithm at most; it ends when no value moves."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole("bits", 1, 8, BITS_IN_CONFIGURATION)
        normalize_channel(self)
        self.require_one_of("granularity", "tensor", "row")
        self.require_whole("iterations", 1)

    def summary(self) -> str:
        """Such as ``4 bit tensor kmeans``."""
        return f"{self.bits} bit {self.granularity} {self.name}"


@dataclass(frozen=True)
class SignsAndScale(MatrixMethod):
    """What binary and ternary weights share: w' = scale * sign, with one scale per group."""

    while_training: ClassVar[bool] = True

    bits: ClassVar[int]
    """Bits that a weight counts as."""

    granularity: Granularity = "tensor"
    """What shares one scale; as in ``Uniform``, and so for the key below."""

    group_size: int | None = field(default=None, metadata=read_with(granularity="group"))
    """Weights of a group."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_granularity(self)

    def summary(self) -> str:
        """Such as ``ternary tensor``."""
        return f"{self.name} {groups_text(self)}"


@method("quantize", "ternary")
@dataclass(frozen=True)
class Ternary(SignsAndScale):
    """w' = scale * sign(w) where |w| > 0.7 mean |w|, else 0; scale = mean |w| of the weights that are kept.

    Relative squared error of normal weights 0.1916, with 42.4 % zeros. Source: ternary weight networks, Li et al. 2016
    (arXiv 1605.04711), equations 3 to 6, as in TernaryBERT (arXiv 2009.12812).
    """

    bits: ClassVar[int] = 2


@method("quantize", "binary")
@dataclass(frozen=True)
class Binary(SignsAndScale):
    """w' = scale * sign(w) with scale = mean |w|, both over the weights that are not 0: a pruned weight stays 0.

    Relative squared error of normal weights 1 - 2 / pi. Source: XNOR-Net, Rastegari et al. 2016 (arXiv 1603.05279),
    equation 6, as in XTC (arXiv 2206.01859).
    """

    bits: ClassVar[int] = 1
