"""What an architecture brings, in one object: sizes, costs, names of its parts, and how it is built and computed.

Nothing here loads torch or transformers: a sweep is planned without them. Functions of a family that need a library
import it when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from trainlarge.errors import UserError
from trainlarge.models.layout import LayerLayout

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig

    from trainlarge.models.shape import Shape

PAD_ID = 0
"""Id of the padding token, as our tokenizers have it."""

ROTARY_BASE = 10_000.0
"""Base of the rotary frequencies in every layer (Su et al. 2021); the larger bases of the library's configurations are
for rows of thousands of tokens."""


class Head(StrEnum):
    """What a model predicts."""

    MASKED_LM = "masked_lm"
    """The tokens that were hidden from it."""

    CAUSAL_LM = "causal_lm"
    """The next token at every position."""

    SEQUENCE_LABEL = "sequence_label"
    """One of ``Shape.labels`` classes of a whole row."""


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model by part; the parts add up to every parameter of the Hugging Face model."""

    token_embedding: int = 0
    """Token vectors, once even where the output layer shares them."""

    position_embedding: int = 0
    """Learned position vectors; 0 with rotary positions."""

    encoder: int = 0
    """All layers."""

    final_norm: int = 0
    """Norm after the last layer."""

    head: int = 0
    """Prediction head: dense layer, norm and the bias over the vocabulary, or the whole classifier of rows."""

    untied_output: int = 0
    """Output matrix over the vocabulary, where it does not share the token embedding."""

    token_type_embedding: int = 0
    """The single segment vector that RoBERTa keeps from BERT and papers do not count."""

    embedding_norm: int = 0
    """Norm of the embedding's output, which papers do not count."""

    unused_bias: int = 0
    """A second bias over the vocabulary that the library's untied RoBERTa holds and never reads."""

    @property
    def embedding(self) -> int:
        """Every table of vectors: tokens, positions, segments and an untied output matrix."""
        return self.token_embedding + self.position_embedding + self.token_type_embedding + self.untied_output

    @property
    def non_embedding(self) -> int:
        """Everything but the tables, the N of Kaplan et al. 2020 (section 1.3)."""
        return self.total - self.embedding

    @property
    def total(self) -> int:
        """Every parameter of the model."""
        return sum(vars(self).values())

    def __add__(self, other: ParameterCounts) -> ParameterCounts:
        return ParameterCounts(**{part: count + vars(other)[part] for part, count in vars(self).items()})


@dataclass(frozen=True)
class FastPath:
    """A forward pass over the library's modules with fewer operations, see :mod:`trainlarge.models.fast`."""

    supports: Callable[[PretrainedConfig], bool]
    """Whether a Hugging Face configuration is the fixed case that ``features`` computes."""

    features: Callable[..., Tensor]
    """(model of the head's class, inputs [rows, sequence], predicted [rows, m], type of the products) to what the
    output layer reads, [rows * m, width]. ``predicted`` are indices, within their row, of the tokens at which
    predictions are made. A head that labels rows has the attention mask [rows, sequence] in their place, 1 at tokens
    and 0 at padding, and gives [rows, width]."""


@dataclass(frozen=True)
class FamilyHead:
    """One head of a family: the library's class, its parameters and costs, and the names of its modules."""

    model_class: str | None
    """Class of transformers, such as ``ModernBertForMaskedLM``; None where the configuration decides it."""

    counts: Callable[[Shape], ParameterCounts]
    """Parameters of the head alone."""

    output: str
    """Name of the linear layer that makes the logits."""

    output_norm: str | None
    """Name of the norm directly in front of it; None where there is none."""

    has_dense: bool
    """Whether a layer of width x width stands in front of the output layer."""

    chain: tuple[str, ...] = ()
    """Modules that turn hidden vectors into logits, in order, each applied to one position on its own; empty where the
    head is not applied position by position."""

    is_everywhere: bool = False
    """Whether the library applies the output layer to all tokens of a row, whichever are asked for."""

    poolings: Mapping[str, str] = field(default_factory=dict)
    """``task.pooling`` -> ``classifier_pooling`` of the library's configuration; empty where it has no such choice."""

    unused_bias: str | None = None
    """Name of a bias that the forward pass never reads where it is not the one of the output layer."""

    fast: FastPath | None = None
    """Fast forward pass; None: only the library's own."""

    flops: Callable[[Shape, int], int] | None = None
    """(shape, tokens of a row) to FLOPs of the forward pass over the row; None: by the formula of
    :mod:`trainlarge.models.flops`."""


@dataclass(frozen=True)
class StoredShape:
    """What the ``config.json`` of a family's models says, beyond the sizes that all families call alike."""

    dropout: str
    """Key of the dropout."""

    is_tied: bool
    """Whether input and output embedding are one matrix where it does not say."""

    fixed: Mapping[str, object]
    """Keys on which parameters and FLOPs depend -> the one value with which the formulas hold, that of a key which is
    not there."""


@dataclass(frozen=True)
class Family:
    """One architecture of transformers, with everything that this program must know about it.

    To add one: a file in ``models/families`` with a ``FAMILY``, and a yaml in ``conf/arch`` with its name.
    """

    name: str
    """As ``arch.name`` gives it."""

    model_type: str
    """``config.model_type`` of the Hugging Face architecture."""

    is_causal: bool
    """Whether a token sees only those before it. FLOPs are those of the full square of scores all the same, as in the
    literature (Kaplan et al. 2020) and in ``torch.utils.flop_counter``."""

    rotary: bool
    """Positions are rotations of queries and keys (Su et al. 2021) of pairs of channels; else learned vectors."""

    positions_from_padding: bool
    """Positions are counted from the padding id + 1 (fairseq's convention, kept by Hugging Face); else from 0."""

    ffn_matrices: int
    """Matrices of size width x inner width in a feed-forward block: 3 with a gate (Shazeer 2020), else 2."""

    layout: LayerLayout
    """Names of the linear layers: what structured pruning cuts, and which parameters make queries under muP."""

    config: Callable[[Shape, Head], PretrainedConfig]
    """The Hugging Face configuration of a shape. :func:`trainlarge.models.build.build_model` adds what is the same for
    every family: the initial deviation, the kind of attention, the number of labels."""

    counts: Callable[[Shape], ParameterCounts]
    """Parameters without a head."""

    stored: StoredShape
    """How a shape is read off a Hugging Face folder."""

    heads: Mapping[Head, FamilyHead]
    """The heads that it has; the first one is that of its pretraining."""

    segments: int = 1
    """Texts of a row that the model can tell apart by vectors of their own (``token_type_ids``)."""

    @property
    def first_position(self) -> int:
        """Row of the position table that the first token of a row uses."""
        return PAD_ID + 1 if self.positions_from_padding else 0

    @property
    def pretraining_head(self) -> Head:
        """The head with which the family learns from plain text."""
        return next(iter(self.heads))

    def head(self, head: Head | None = None) -> FamilyHead:
        """One of its heads; None: that of its pretraining.

        Raises:
            UserError: on ``arch.name``, when the family has no such head.
        """
        wanted = head or self.pretraining_head
        if wanted not in self.heads:
            has = " and ".join(self.heads)
            raise UserError("arch.name", self.name, f"a family with the head {wanted}; this one has {has}")
        return self.heads[wanted]
