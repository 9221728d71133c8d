"""The list of all formats. A new one is one file like ``affine.py``, with its payload in these lists."""

from __future__ import annotations

from typing import Any

from trainlarge.compression.stored.affine import Affine, AffineCodes, CentredCodes
from trainlarge.compression.stored.codebook import BookCodes, Codebook
from trainlarge.compression.stored.dense import Dense, Values
from trainlarge.compression.stored.dense_plus_sparse import DensePlusSparse
from trainlarge.compression.stored.offset import Offset, OffsetCodes
from trainlarge.compression.stored.payload import Payload
from trainlarge.compression.stored.repaired import Repaired, RepairedCodes
from trainlarge.compression.stored.signs import SignBits, Signs, Trits
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.compression.stored.used_values import UsedValues

PAYLOADS: tuple[Payload[Any], ...] = (
    *(Values(), AffineCodes(), OffsetCodes(), BookCodes(), SignBits(), Trits()),
    *(UsedValues(), CentredCodes(), RepairedCodes()),
)
"""All payloads; of several that take as many bytes the first is used."""

FORMATS: tuple[type[StoredTensor], ...] = (Dense, Affine, Offset, Codebook, Signs, DensePlusSparse, Repaired)
"""All formats. ``DensePlusSparse`` has no payload of its own: each of its two tensors has that of its format."""
