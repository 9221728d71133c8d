"""The weights of a model as a dictionary: tied tensors once, with what compression must know about each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from trainlarge.errors import UserError


@dataclass(frozen=True, eq=False)
class Weights:
    """A snapshot of a checkpoint's weights on the CPU: changing the model afterwards does not change it."""

    tensors: Mapping[str, Tensor]
    """Every entry of the model's ``state_dict`` in its order; tied ones once, under their first name. Read only."""

    matrices: frozenset[str]
    """Names of the floating parameters with two dimensions or more: what methods act on."""

    embeddings: frozenset[str]
    """The matrices that belong to an ``nn.Embedding``, and so also a tied output matrix."""

    buffers: frozenset[str]
    """Names of the entries that are no parameters: kept as they are and not counted."""

    architecture: str
    """Class name of the model, such as ``ModernBertForMaskedLM``."""

    config: Mapping[str, Any]
    """The model's Hugging Face configuration as JSON data; empty for a plain torch module."""

    @classmethod
    def of(cls, model: nn.Module) -> Weights:
        """Snapshot of ``model``. Raises UserError, which names the tensor, where a weight is NaN or infinite."""
        entries = _entries(model)
        tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in entries.items()}
        _check_finite(tensors)
        parameters = {name for name, tensor in entries.items() if isinstance(tensor, nn.Parameter)}
        matrices = {name for name in parameters if _is_matrix(entries[name])}
        embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        return cls(
            tensors=tensors,
            matrices=frozenset(matrices),
            embeddings=frozenset(name for name in matrices if id(entries[name]) in embedded),
            buffers=frozenset(set(entries) - parameters),
            architecture=type(model).__name__,
            config=_config(model),
        )

    def selected(self, embeddings: bool) -> list[str]:
        """Names of the matrices, in order, with or without the embedding matrices."""
        return [name for name in self.tensors if name in self.matrices and (embeddings or name not in self.embeddings)]


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy ``tensors`` (tied ones once, as in ``Weights``) into ``model``, in place.

    Raises UserError where names or shapes are not exactly those of the model; then nothing is changed.
    """
    entries = _entries(model)
    _check_same({name: tuple(tensor.shape) for name, tensor in entries.items()}, tensors)
    with torch.no_grad():
        for name, tensor in tensors.items():
            entries[name].copy_(tensor)


def adopt_dtypes(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give every parameter and buffer of ``model`` the data type of its tensor, so that loading rounds nothing."""
    for name, entry in _entries(model).items():
        if name in tensors and entry.dtype != tensors[name].dtype:
            entry.data = entry.data.to(tensors[name].dtype)


def _entries(model: nn.Module) -> dict[str, Tensor]:
    """The live tensors of the model's state dict; one that appears under several names only under the first."""
    entries: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            entries[name] = tensor
    return entries


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.ndim >= 2 and tensor.is_floating_point() and tensor.numel() > 0


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"weights.{name}", "NaN or infinite values", "finite numbers")


def _check_same(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    for name in [*expected, *tensors]:
        found = tuple(tensors[name].shape) if name in tensors else "missing"
        wanted = f"shape {expected[name]} of this model" if name in expected else "no such tensor in this model"
        if name not in expected or found != expected[name]:
            raise UserError(f"weights.{name}", found, wanted)


def _config(model: nn.Module) -> dict[str, Any]:
    config = getattr(model, "config", None)
    return config.to_diff_dict() if isinstance(config, PreTrainedConfig) else {}
