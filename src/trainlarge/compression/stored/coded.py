"""What the formats share that store one small code per weight: quantized weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from trainlarge.compression.stored.container import Layout, TensorSpec
from trainlarge.compression.stored.floats import representable
from trainlarge.compression.stored.groups import per_weight
from trainlarge.compression.stored.note import Note, dtype_name
from trainlarge.compression.stored.packed_bits import bytes_spec, pack_codes
from trainlarge.compression.stored.payload import Payload, select
from trainlarge.compression.stored.stored_tensor import Elementwise


@dataclass(frozen=True, eq=False, kw_only=True)
class Coded(Elementwise):
    """One code of a few bits per weight."""

    codes: Tensor
    """Integers of one byte, of the tensor's shape."""

    bits: int
    """Bits per code."""

    @property
    def shape(self) -> torch.Size:
        return self.codes.shape

    def symbols(self) -> list[Tensor]:
        """The ways to write every weight as one code, each uint8 of any shape; none where codes do not tell zeros."""
        return [self.codes.view(torch.uint8)]


C = TypeVar("C", bound=Coded)
G = TypeVar("G", bound="Grouped")


class CodesPayload(Payload[C]):
    """Codes of ``bits`` bits, and the small arrays that say what the codes mean."""

    @abstractmethod
    def arrays(self, tensor: C) -> dict[str, Tensor]:
        """Part name -> scales, zero points, books, ..."""

    def layout(self, tensor: C, count: int) -> Layout:
        arrays = {name: TensorSpec.of(array) for name, array in self.arrays(tensor).items()}
        return {"codes": bytes_spec(count, tensor.bits), **arrays}

    def encode(self, tensor: C, is_stored: Tensor) -> dict[str, Tensor]:
        return {"codes": pack_codes(select(tensor.codes, is_stored), tensor.bits), **self.arrays(tensor)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Grouped(Coded):
    """Codes, and the same scale for all weights of a group.

    A subclass slices what else it has per group or per weight in ``slice_others``.
    """

    scale: Tensor
    """float32 [rows, groups]; the tensor reshaped to [rows, -1] has ``groups`` scales per row."""

    dtype: torch.dtype
    """Data type of the float tensor."""

    group_size: int | None = None
    """Weights of a group of a row; None: the row is one group."""

    @property
    def rows(self) -> Tensor:
        """The codes as [rows, weights per row]."""
        return self.codes.view(len(self.scale), -1)

    def per_weight(self, values: Tensor) -> Tensor:
        """What belongs to each weight, broadcast against ``rows``, of ``values`` [rows, groups] or [1, 1]."""
        return per_weight(values, self.group_size, self.rows.shape[1])

    def slice(self: G, dimension: int, kept: Tensor, nonzero: int) -> G | None:
        if dimension > 0 and self.scale.shape[1] > 1:
            # Columns would be taken out of several groups of a row.
            return None
        codes, scale = self.codes.index_select(dimension, kept), rows_left(self.scale, dimension, kept)
        return self.slice_others(replace(self, codes=codes, scale=scale), dimension, kept, nonzero)

    @abstractmethod
    def slice_others(self: G, left: G, dimension: int, kept: Tensor, nonzero: int) -> G:
        """``left``, whose codes and scales are sliced, with the other fields of this tensor sliced too."""

    def _as_float(self, rows: Tensor) -> Tensor:
        """Float values [rows, weights per row] as the tensor that is evaluated."""
        return representable(rows.view(self.shape), self.dtype)


def rows_left(values: Tensor, dimension: int, kept: Tensor) -> Tensor:
    """What is left of ``values`` [rows, ...], or [1, ...] for the whole tensor, after only some indices are kept."""
    return values if dimension or len(values) == 1 else values.index_select(0, kept)


def grouped_note(tensor: Grouped, facts: Mapping[str, int]) -> Note:
    """The note of a tensor in the packed file, with further ``facts``; a group size only where there is one."""
    note: Note = {"shape": list(tensor.shape), "bits": tensor.bits, "dtype": dtype_name(tensor.dtype), **facts}
    if tensor.group_size is not None:
        note["group_size"] = tensor.group_size
    return note


def check_groups(scale: Tensor, group_size: int | None, count: int) -> None:
    """Raise ValueError unless ``scale`` is [rows, groups] for ``count`` weights; a file may claim anything."""
    rows, groups = scale.shape
    if count % rows or (groups != 1 and (group_size is None or groups != -(-count // rows // group_size))):
        raise ValueError(f"{rows} x {groups} groups of {group_size} for {count} weights")
