"""Codes of 1 to 8 bits and masks of 1 bit as bytes without gaps, and back. Little-endian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
"""[n] uint8."""


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits take."""
    return -(-count * bits // 8)


def pack(codes: Bytes, bits: int) -> Bytes:
    """[n] uint8 codes below 2^bits -> uint8 [packed_bytes(n, bits)].

    Eight codes make ``bits`` bytes: they are put into one 64-bit word, of which the lower bytes are kept.
    """
    if bits == 8:
        return codes
    lanes = np.zeros((-(-len(codes) // 8), 8), dtype=np.uint8)
    lanes.reshape(-1)[: len(codes)] = codes
    words = np.zeros(len(lanes), dtype="<u8")
    for lane in range(8):
        words |= lanes[:, lane].astype("<u8") << np.uint64(bits * lane)
    return words.view(np.uint8).reshape(-1, 8)[:, :bits].reshape(-1)[: packed_bytes(len(codes), bits)]


def unpack(packed: Bytes, bits: int, count: int) -> Bytes:
    """The inverse of ``pack``: uint8 [count]. Raises ValueError where ``packed`` are not the bytes of so many codes."""
    _check_length(packed, count, bits)
    groups = -(-count // 8)
    padded = np.zeros(groups * bits, dtype=np.uint8)
    padded[: len(packed)] = packed
    words = np.zeros((groups, 8), dtype=np.uint8)
    words[:, :bits] = padded.reshape(groups, bits)
    lanes = np.empty((groups, 8), dtype=np.uint8)
    for lane in range(8):
        lanes[:, lane] = (words.view("<u8")[:, 0] >> np.uint64(bits * lane)) & np.uint64(2**bits - 1)
    return lanes.reshape(-1)[:count]


def pack_mask(mask: NDArray[np.bool_]) -> Bytes:
    """[n] bool -> uint8 [packed_bytes(n, 1)]."""
    return np.packbits(mask, bitorder="little")


def unpack_mask(packed: Bytes, count: int) -> NDArray[np.bool_]:
    """The inverse of ``pack_mask``: bool [count]. Raises ValueError as ``unpack`` does."""
    _check_length(packed, count, 1)
    return np.unpackbits(packed, count=count, bitorder="little").view(bool)


def pack_trits(trits: Bytes) -> Bytes:
    """[n] uint8 digits 0 to 2 -> uint8 [ceil(n / 5)]: five digits in base 3 per byte."""
    lanes = np.zeros((-(-len(trits) // 5), 5), dtype=np.uint8)
    lanes.reshape(-1)[: len(trits)] = trits
    digits: Bytes = (lanes * _POWERS_OF_THREE).sum(1, dtype=np.uint8)
    return digits


def unpack_trits(packed: Bytes, count: int) -> Bytes:
    """The inverse of ``pack_trits``: uint8 [count]. Raises ValueError as ``unpack`` does."""
    if packed.shape != (-(-count // 5),):
        raise ValueError(f"{count} digits in {packed.shape} bytes")
    return (packed[:, None] // _POWERS_OF_THREE % 3).reshape(-1)[:count]


def _check_length(packed: Bytes, count: int, bits: int) -> None:
    """Checked before memory is allocated for ``count`` codes: a file may claim any number of them."""
    if not 1 <= bits <= 8 or count < 0 or packed.shape != (packed_bytes(count, bits),):
        raise ValueError(f"{count} codes of {bits} bits in {packed.shape} bytes")


_POWERS_OF_THREE = 3 ** np.arange(5, dtype=np.uint8)
