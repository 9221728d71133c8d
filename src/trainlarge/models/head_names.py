"""Which part of a model is its prediction head: what stands behind the part that all heads of an architecture share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

_POOLER = "pooler."
"""What BERT and others have for a head alone within the part that is shared."""


@dataclass(frozen=True)
class HeadNames:
    """The names of a head's modules and tensors."""

    base: str
    """Name of the part that all heads of the architecture share."""

    def holds(self, name: str) -> bool:
        """Whether a module or a tensor belongs to the head: it is not in the shared part, or in its pooler."""
        place, prefix = f"{name}.", f"{self.base}."
        return not place.startswith(prefix) or place.removeprefix(prefix).startswith(_POOLER)


def find_head(model: nn.Module) -> HeadNames | None:
    """The head of a model, by the library's name for the shared part (``base_model_prefix``).

    So it is that of every family: dense layer, norm and classifier (ModernBERT, RoBERTa), or the scores (Llama). None
    for a plain torch module, and for a model without a part of that name.
    """
    if not isinstance(model, PreTrainedModel) or model.base_model is model:
        return None
    return HeadNames(model.base_model_prefix)
