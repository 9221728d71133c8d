"""The tensors of a model by name, tied ones once, and loading other tensors in their place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainlarge.compression.layout.shapes import Structure
from trainlarge.compression.layout.skeleton import reshape, skeleton_of
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.errors import UserError


def entries_of(model: nn.Module) -> dict[str, Tensor]:
    """The live tensors of the model's state dict; one that appears under several names only under the first."""
    entries: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            entries[name] = tensor
    return entries


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy ``tensors`` (tied ones once, as in ``Weights``) into ``model``, in place.

    Raises UserError where names or shapes are not exactly those of the model; then nothing is changed.
    """
    load_stored(model, {name: Dense(tensor) for name, tensor in tensors.items()})


def load_stored(model: nn.Module, stored: Mapping[str, StoredTensor]) -> None:
    """:func:`load_weights` with the float tensors of ``stored``, of which one is in memory at a time."""
    check_same_shapes(model, {name: tuple(tensor.shape) for name, tensor in stored.items()})
    entries = entries_of(model)
    with torch.no_grad():
        for name, tensor in stored.items():
            entries[name].copy_(tensor.dense())


def load_reshaped(model: nn.Module, structure: Structure, tensors: Mapping[str, Tensor]) -> None:
    """Cut a model with the shapes of the checkpoint to ``structure`` and copy ``tensors`` into it, in place.

    Raises UserError where the model is another one; then nothing is changed.
    """
    if structure:
        trial = skeleton_of(model)
        reshape(trial, structure)
        check_same_shapes(trial, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        reshape(model, structure)
    load_weights(model, tensors)


def check_same_shapes(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UserError where names or shapes are not exactly those of ``model`` (tied tensors once)."""
    expected = {name: tuple(tensor.shape) for name, tensor in entries_of(model).items()}
    for name in [*expected, *shapes]:
        shape = shapes.get(name, "missing")
        if name not in expected:
            raise UserError(f"weights.{name}", shape, "no such tensor in this model")
        if shape != expected[name]:
            raise UserError(f"weights.{name}", shape, f"of shape {list(expected[name])}, as in this model")


def rounded_buffers(model: nn.Module) -> dict[str, torch.dtype]:
    """Name of a buffer in half precision that is in no state dict -> its data type.

    Models compute such buffers when they are made, in float32 (rotary frequencies), and ``model.to(torch.bfloat16)``
    rounds them. What the library loads in half precision has them in float32.
    """
    stored = entries_of(model)
    buffers = {name: buffer.dtype for name, buffer in model.named_buffers() if name not in stored}
    return {name: dtype for name, dtype in buffers.items() if dtype in (torch.float16, torch.bfloat16)}


def round_buffers(model: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Round buffers of a new model to the data types that ``rounded_buffers`` gave.

    Raises ValueError for a name that is none of a buffer.
    """
    buffers = dict(model.named_buffers())
    for name, dtype in dtypes.items():
        if name not in buffers:
            raise ValueError(f"{name} is no buffer of {type(model).__name__}")
        buffers[name].data = buffers[name].data.to(dtype)


def adopt_dtypes(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give every parameter and buffer of ``model`` the data type of its tensor, so that loading rounds nothing."""
    for name, entry in entries_of(model).items():
        if name in tensors and entry.dtype != tensors[name].dtype:
            entry.data = entry.data.to(tensors[name].dtype)
