"""Entropy coding of the parts of an encoding: few bits where a byte is frequent.

zstd (RFC 8878) gives the bytes between repetitions, of which codes of weights have next to none, a Huffman code of 11
bits at most. That comes near the entropy where a byte holds as many whole codes as fit: so codes whose width does not
divide 8 are spread first, to one per byte, or two where they have 3 bits; and bytes of which none is frequent, such as
codes of 8 bits, are split into halves, of which the lower ones are left as they are. On trained weights that is within
1 % of the entropy. Range coding would come nearer by less than that; zstd's format is fixed (RFC 8878). Brotli is 100
times slower and not smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
import torch
from torch import Tensor
from zstandard import (
    STRATEGY_FAST,
    ZstdCompressionParameters,
    ZstdCompressor,
    ZstdDecompressor,
    frame_content_size,
)

from trainlarge.compression.stored import bits as bit
from trainlarge.compression.stored.bits import Bytes
from trainlarge.compression.stored.note import BOTH, SUMMANDS, Note, integer, note_in, shape_in
from trainlarge.compression.stored.payload import Tensors

ZSTD: Final = "zstd"
"""Key of a note with the parts that are entropy-coded; also the name of the coder in a configuration."""
_LITERALS = ZstdCompressionParameters(
    window_log=17, hash_log=6, chain_log=6, search_log=1, min_match=7, strategy=STRATEGY_FAST
)
"""Looks for few repetitions: chance ones cost more than they save, 13 % at 3 bits."""
_REPETITIONS = ZstdCompressionParameters.from_level(3)
"""zstd's own default, for rows that are alike."""
HALF: Final = 4
"""Bits of half a byte."""
_WIDTHS = {"codes": "bits", "gaps": "gap_bits"}
"""Part of an encoding -> key of its note with the bits of a code."""


@dataclass(frozen=True)
class CodedPart:
    """A part of an encoding after entropy coding."""

    data: Tensor
    """uint8: one frame of zstd, after the lower halves of the bytes where they are split."""

    shape: tuple[int, ...]
    """Of the uint8 tensor before it."""

    bits: int
    """Bits of a code in them; 8 where they are not codes, or where whole codes make a byte."""

    is_split: bool = False
    """Whether only the upper halves of the bytes are coded."""

    def to_json(self) -> Note:
        """What ``restored`` needs in addition to ``data``."""
        note: Note = {"shape": list(self.shape), "bits": self.bits}
        return {**note, "low_bits": HALF} if self.is_split else note


def coded_parts(parts: Tensors, note: Note) -> dict[str, CodedPart]:
    """Part name -> the part after entropy coding, for those that it makes smaller.

    Args:
        parts: as an encoding gives them; those that are not bytes stay.
        note: what the encoding says of them.
    """
    bits = _bits_of_parts(note)
    coded = {name: _coded(part, bits.get(name, 8)) for name, part in parts.items() if part.dtype == torch.uint8}
    return {name: part for name, part in coded.items() if part.data.nbytes < prod(part.shape)}


def restored(parts: Tensors, note: Note) -> dict[str, Tensor]:
    """The parts as they were before entropy coding.

    Raises:
        ValueError: a frame is damaged or is not that of so many bytes, or more bytes are claimed than weights.
    """
    if ZSTD not in note:
        return dict(parts)
    coded = note_in(note, ZSTD)
    return {**parts, **{name: _restored(parts[name], note_in(coded, name), note) for name in coded}}


def _coded(part: Tensor, bits: int) -> CodedPart:
    packed, shape = part.numpy().reshape(-1), tuple(part.shape)
    whole = CodedPart(_as_tensor(_frame(_spread(packed, bits))), shape, bits)
    if bits < 8:
        return whole
    low, high = bit.pack(packed & np.uint8(15), HALF), bit.pack(packed >> np.uint8(HALF), HALF)
    split = CodedPart(_as_tensor(low.tobytes() + _frame(high)), shape, bits, is_split=True)
    return min(whole, split, key=lambda coded: len(coded.data))


def _frame(symbols: Bytes) -> bytes:
    data = symbols.tobytes()
    return min((ZstdCompressor(compression_params=each).compress(data) for each in (_LITERALS, _REPETITIONS)), key=len)


def _as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _restored(part: Tensor, coded: Note, note: Note) -> Tensor:
    shape, bits = shape_in(coded), integer(coded, "bits")
    before, weights = prod(shape), prod(shape_in(note_in(note, SUMMANDS[0]) if note.get("encoding") == BOTH else note))
    low_bits = integer(coded, "low_bits") if "low_bits" in coded else 0
    # Checked before memory is taken: no part has more bytes than there are weights.
    if not 0 < before <= weights or not 1 <= bits <= 8 or low_bits not in (0, HALF):
        raise ValueError(f"{before} bytes of {bits} bits, {low_bits} of them low ones, for {weights} weights")
    packed = part.numpy()
    return torch.from_numpy(_joined(packed, before) if low_bits else _unspread(packed, bits, before)).view(shape)


def _joined(data: Bytes, count: int) -> Bytes:
    """The bytes whose lower halves are there as they are, and whose upper halves are coded: uint8 [count]."""
    size = bit.packed_bytes(count, HALF)
    low, high = bit.unpack(data[:size], HALF, count), bit.unpack(_symbols(data[size:], size), HALF, count)
    return low | (high << np.uint8(HALF))


def _symbols(frame: Bytes, size: int) -> Bytes:
    """What a frame of zstd holds. Raises ValueError where it does not hold ``size`` bytes."""
    data = frame.tobytes()
    if frame_content_size(data) != size:
        raise ValueError(f"{frame_content_size(data)} bytes in a frame of zstd in the place of {size}")
    return np.frombuffer(ZstdDecompressor().decompress(data, max_output_size=size), dtype=np.uint8)


def _spread(packed: Bytes, bits: int) -> Bytes:
    """Packed codes as bytes of as many whole codes as fit; what fills up the last byte is 0."""
    if 8 % bits == 0:
        return packed
    per_byte, codes = 8 // bits, bit.unpack(packed, bits, len(packed) * 8 // bits)
    lanes = np.zeros((_spread_bytes(len(packed), bits), per_byte), dtype=np.uint8)
    lanes.reshape(-1)[: len(codes)] = codes
    spread: Bytes = np.bitwise_or.reduce(lanes << (bits * np.arange(per_byte, dtype=np.uint8)), axis=1)
    return spread


def _unspread(frame: Bytes, bits: int, before: int) -> Bytes:
    """The inverse of ``_spread`` and of zstd: uint8 [before]."""
    spread = _symbols(frame, _spread_bytes(before, bits))
    if 8 % bits == 0:
        return spread.copy()
    lanes = spread[:, None] >> (bits * np.arange(8 // bits, dtype=np.uint8))
    codes = (lanes & np.uint8(2**bits - 1)).reshape(-1)[: before * 8 // bits]
    return np.ascontiguousarray(bit.pack(codes, bits))


def _spread_bytes(packed: int, bits: int) -> int:
    return packed if 8 % bits == 0 else -(-(packed * 8 // bits) // (8 // bits))


def _bits_of_parts(note: Note) -> Mapping[str, int]:
    """Part name -> bits of its codes, where the note says them."""
    if note.get("encoding") == BOTH:
        return {f"{key}.{name}": bits for key in SUMMANDS for name, bits in _bits_of_parts(note_in(note, key)).items()}
    return {part: integer(note, key) for part, key in _WIDTHS.items() if key in note}
