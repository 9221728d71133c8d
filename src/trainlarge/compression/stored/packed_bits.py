"""Codes and bools of tensors as bytes without gaps, and back: ``bits.py`` for torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainlarge.compression.stored import bits as bit
from trainlarge.compression.stored.container import TensorSpec


def bytes_spec(count: int, bits: int) -> TensorSpec:
    """What ``pack_codes`` makes of ``count`` codes."""
    return TensorSpec(torch.uint8, (bit.packed_bytes(count, bits),))


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """[n] uint8 codes -> uint8 [bytes]."""
    return torch.from_numpy(np.ascontiguousarray(bit.pack(codes.numpy(), bits)))


def unpack_codes(packed: Tensor, bits: int, count: int) -> Tensor:
    """The inverse of ``pack_codes``: uint8 [count]. Raises ValueError where ``packed`` has another length."""
    return torch.from_numpy(bit.unpack(packed.numpy(), bits, count))


def pack_bools(bools: Tensor) -> Tensor:
    """A bool tensor of n entries and any shape -> uint8 [ceil(n / 8)]."""
    return torch.from_numpy(bit.pack_mask(bools.reshape(-1).numpy()))


def unpack_bools(packed: Tensor, count: int) -> Tensor:
    """The inverse of ``pack_bools``: bool [count]. Raises ValueError where ``packed`` has another length."""
    return torch.from_numpy(bit.unpack_mask(packed.numpy(), count))
