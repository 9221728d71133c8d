"""The list of all formats. A new one is one file like ``affine.py``, and its payload in this list."""

from __future__ import annotations

from typing import Any

from trainlarge.compression.stored.affine import AffineCodes
from trainlarge.compression.stored.codebook import BookCodes
from trainlarge.compression.stored.dense import Values
from trainlarge.compression.stored.dense_plus_sparse import DensePlusSparse
from trainlarge.compression.stored.offset import OffsetCodes
from trainlarge.compression.stored.payload import Payload
from trainlarge.compression.stored.signs import SignBits, Trits
from trainlarge.compression.stored.stored_tensor import StoredTensor

PAYLOADS: tuple[Payload[Any], ...] = (Values(), AffineCodes(), OffsetCodes(), BookCodes(), SignBits(), Trits())
"""All payloads; of several that take as many bytes the first is used."""

FORMATS: tuple[type[StoredTensor], ...] = (*dict.fromkeys(each.tensor_class for each in PAYLOADS), DensePlusSparse)
"""All formats. ``DensePlusSparse`` has no payload: each of its two tensors is written by its own."""
