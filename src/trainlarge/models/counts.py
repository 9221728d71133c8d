"""How many parameters a shape has, by formula, part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass

from trainlarge.models.shape import Shape


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model by part; the parts add up to every parameter of the Hugging Face model."""

    token_embedding: int
    """Token vectors, once even where the output layer shares them."""

    position_embedding: int
    """Learned position vectors; 0 with rotary positions."""

    encoder: int
    """All layers."""

    final_norm: int
    """Norm after the last layer."""

    head: int
    """Prediction head: dense layer, norm and the bias over the vocabulary."""

    untied_output: int
    """Output matrix, where it does not share the token embedding."""

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
        return sum(astuple(self))


def parameter_counts(shape: Shape) -> ParameterCounts:
    """Parameters of the model that :func:`trainlarge.models.build.build_model` makes of a shape."""
    return _COUNTS[shape.name](shape)


def _modern(shape: Shape) -> ParameterCounts:
    width, matrices = shape.width, shape.family.ffn_matrices
    layer = 4 * width**2 + matrices * width * shape.ffn_width + 2 * width
    return ParameterCounts(
        token_embedding=shape.vocab_size * width,
        position_embedding=0,
        # The first layer has no norm before its attention: the embedding's norm stands directly in front of it.
        encoder=shape.depth * layer - width,
        final_norm=width,
        head=width**2 + width + shape.vocab_size,
        untied_output=0 if shape.tied else shape.vocab_size * width,
        embedding_norm=width,
    )


def _roberta(shape: Shape) -> ParameterCounts:
    width, inner = shape.width, shape.ffn_width
    attention, ffn, norms = 4 * (width**2 + width), 2 * width * inner + inner + width, 4 * width
    return ParameterCounts(
        token_embedding=shape.vocab_size * width,
        position_embedding=shape.positions * width,
        encoder=shape.depth * (attention + ffn + norms),
        final_norm=2 * width,
        head=width**2 + 3 * width + shape.vocab_size,
        untied_output=0 if shape.tied else shape.vocab_size * width,
        token_type_embedding=width,
        embedding_norm=2 * width,
        unused_bias=0 if shape.tied else shape.vocab_size,
    )


_COUNTS: dict[str, Callable[[Shape], ParameterCounts]] = {"modern": _modern, "roberta": _roberta}
