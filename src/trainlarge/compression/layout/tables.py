"""The parts of a model with one entry per token of the vocabulary: token embedding, output layer, their biases."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Tables:
    """The parts of a model that have one entry per token."""

    embedding: str
    """Name of the token embedding."""

    output: str | None
    """Name of the output layer; None where the model predicts no tokens."""

    vectors: tuple[str, ...]
    """Names of the biases of the output layer, wherever they are kept."""

    size: int
    """Entries of the vocabulary."""

    padding: int | None
    """Number of the padding token."""

    is_padding_fixed: bool
    """Whether other modules hold that number too, so that it must not change: RoBERTa counts positions from it."""


def find_tables(model: nn.Module) -> Tables | None:
    """The tables of a model; None for one that is no Hugging Face model over tokens.

    None, too, for one with several token embeddings, as an encoder-decoder has, even where they share their weights.
    """
    if not isinstance(model, PreTrainedModel):
        return None
    try:
        embedding = model.get_input_embeddings()
    except NotImplementedError:
        # The library's way to say that it has none, as for models of images.
        return None
    if not isinstance(embedding, nn.Embedding):
        return None
    modules = [module for _, module in model.named_modules(remove_duplicate=False)]
    if sum(isinstance(module, nn.Embedding) and module.weight is embedding.weight for module in modules) > 1:
        return None
    output: object = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    names = {id(module): name for name, module in model.named_modules()}
    output_name = names[id(output)] if isinstance(output, nn.Linear) else None
    return Tables(
        embedding=names[id(embedding)],
        output=output_name,
        vectors=_biases(model, output_name, embedding.num_embeddings),
        size=embedding.num_embeddings,
        padding=embedding.padding_idx,
        is_padding_fixed=_is_padding_fixed(model, embedding),
    )


def _is_padding_fixed(model: nn.Module, embedding: nn.Embedding) -> bool:
    others = (module for module in model.modules() if module is not embedding)
    known = {getattr(module, key, None) for module in others for key in ("padding_idx", "pad_index")}
    return embedding.padding_idx is not None and embedding.padding_idx in known


def _biases(model: nn.Module, output: str | None, size: int) -> tuple[str, ...]:
    """RoBERTa and BERT keep the bias next to the output layer, too: under the same parent."""
    if output is None:
        return ()
    parent = output.rpartition(".")[0]
    of_parent = f"{parent}.bias" if parent else "bias"
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return tuple(
        name for name in (f"{output}.bias", of_parent) if name in parameters and parameters[name].shape == (size,)
    )
