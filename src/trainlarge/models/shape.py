"""The shape of a model: everything that decides its parameters, and nothing that decides their values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from trainlarge.config.arch import ArchConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.models.families import FAMILIES
from trainlarge.models.family import Family, Head
from trainlarge.models.library import LIBRARY, library_segments


@dataclass(frozen=True)
class Shape:
    """Width, depth and the rest of a model, without what it predicts.

    Raises:
        UserError: naming the configuration key, for a shape that no model can have.
    """

    name: str
    """Name of the family, see :data:`trainlarge.models.families.FAMILIES`."""

    width: int
    """Size of the hidden vectors."""

    depth: int
    """Number of layers."""

    heads: int
    """Attention heads of a layer; a divisor of the width."""

    ffn_ratio: float
    """Inner width of the feed-forward block over the width; with a gate, inner width is what comes out of the gate."""

    vocab_size: int
    """Rows of the token embedding."""

    positions: int
    """Most positions the model knows: rows of the position table, or the declared limit of a rotary model."""

    dropout: float = 0.0
    """Probability of every dropout of the architecture: embedding, attention weights and outputs of the blocks."""

    tied: bool = True
    """The output layer over the vocabulary uses the token embedding as its matrix."""

    labels: int = 2
    """Classes of a head that labels whole rows."""

    config: str | None = None
    """Hugging Face configuration of an architecture that is no family, as JSON: see ``trainlarge.models.library``."""

    def __post_init__(self) -> None:
        if self.is_library and self.config:
            return
        if self.name not in FAMILIES:
            raise UserError("arch.name", self.name, f"one of {', '.join(FAMILIES)}")
        for key in ("arch.width", "arch.depth", "arch.heads", "arch.positions", "data.vocab_size", "task.labels"):
            value = getattr(self, key.partition(".")[2])
            if not _is_count(value):
                raise UserError(key, value, "a whole number of at least 1")
        _check_heads(self)
        _check_ffn_width(self)
        if not 0 <= self.dropout < 1:
            raise UserError("arch.dropout", self.dropout, "a number in [0, 1)")

    @classmethod
    def from_config(cls, arch: ArchConfig, vocab_size: int, labels: int = 2, config: str | None = None) -> Shape:
        """Shape of the group ``arch``; ``heads: null`` means :func:`default_heads` of the width.

        ``positions: null`` must have been filled in.
        """
        return _shape(
            arch.name,
            arch.width,
            arch.depth,
            arch.heads,
            arch.ffn_ratio,
            vocab_size,
            arch.positions,
            arch.dropout,
            arch.tied,
            labels,
            config,
        )

    @property
    def family(self) -> Family:
        """The shape's family."""
        return LIBRARY if self.is_library else FAMILIES[self.name]

    @property
    def is_library(self) -> bool:
        """Whether it is that of an architecture which is no family."""
        return self.name == LIBRARY.name

    @property
    def segments(self) -> int:
        """Texts of a row that the model can tell apart."""
        return library_segments(self.config) if self.is_library and self.config else self.family.segments

    @property
    def head_width(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def ffn_width(self) -> int:
        """Inner width of the feed-forward block."""
        return round(self.ffn_ratio * self.width)


def shape_of(config: TrainConfig) -> Shape:
    """The model shape of a train cell."""
    return Shape.from_config(config.arch, config.data.vocab_size, config.task.row_labels, config.checkpoint_config)


def head_of(config: TrainConfig) -> Head:
    """What the model of a train cell predicts."""
    return Head(config.task.head)


# Asked for several times of each of ten thousand cells, which have few shapes. Typed: 64.0 and True are no widths.
@lru_cache(maxsize=1024, typed=True)
def _shape(  # noqa: PLR0913  one for each size
    name: str,
    width: int,
    depth: int,
    heads: int | None,
    ffn_ratio: float,
    vocab_size: int,
    positions: int | None,
    dropout: float,
    tied: bool,
    labels: int,
    config: str | None,
) -> Shape:
    if heads is None and _is_count(width):
        heads = default_heads(width)
    # Where they are null, the shape itself refuses them.
    counts = cast("tuple[int, int]", (heads, positions))
    return Shape(name, width, depth, counts[0], ffn_ratio, vocab_size, counts[1], dropout, tied, labels, config)


def default_heads(width: int) -> int:
    """Heads of a width when none are given: ``max(2, width // 64)``, that is heads of 64 channels and at least two.

    Where that many heads do not divide the width, the next smaller number that does, so that it falls to 1 when 2 does
    not divide. An even width is given heads of an even number of channels, which rotary positions need.
    """
    wanted = max(2, width // 64)
    channels = 2 if width % 2 == 0 else 1
    return next(heads for heads in range(wanted, 0, -1) if width % (heads * channels) == 0)


def check_sequence_length(shape: Shape, sequence_length: int) -> None:
    """Refuse rows of more tokens than the shape has positions for.

    Raises:
        UserError: on ``arch.positions``; RoBERTa starts counting after the padding id and needs as many more.
    """
    needed = sequence_length + shape.family.first_position
    if shape.positions < needed:
        raise UserError(
            "arch.positions", shape.positions, f"at least {needed} with data.sequence_length={sequence_length}"
        )


def _check_heads(shape: Shape) -> None:
    channels = 2 if shape.family.rotary else 1
    allowed = [heads for heads in range(1, shape.width + 1) if shape.width % (heads * channels) == 0]
    if not allowed:
        raise UserError("arch.width", shape.width, f"an even number for arch.name={shape.name}")
    if shape.heads not in allowed:
        even = " with an even number of channels per head" if channels == 2 else ""
        listed = ", ".join(map(str, allowed))
        raise UserError("arch.heads", shape.heads, f"must divide arch.width={shape.width}{even} ({listed})")


def _check_ffn_width(shape: Shape) -> None:
    # 8/3 is a usual ratio and no binary fraction, so a product within rounding of a whole number counts as whole.
    exact = shape.ffn_ratio * shape.width
    if shape.ffn_width < 1 or abs(exact - shape.ffn_width) > 1e-6 * shape.width:
        raise UserError(
            "arch.ffn_ratio", shape.ffn_ratio, f"a number whose product with arch.width={shape.width} is whole"
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
