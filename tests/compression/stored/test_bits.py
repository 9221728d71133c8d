"""Bit packing: round trips at every width and length."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.compression.stored.bits import pack, pack_mask, packed_bytes, unpack, unpack_mask


@given(st.integers(1, 8), st.integers(0, 100), st.integers(0, 9))
def test_codes_round_trip_in_the_fewest_bytes(bits: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, count, dtype=np.uint8)
    packed = pack(codes, bits)
    assert len(packed) == packed_bytes(count, bits) == -(-count * bits // 8)
    assert np.array_equal(unpack(packed, bits, count), codes)


@given(st.lists(st.booleans(), max_size=40))
def test_masks_round_trip(mask: list[bool]) -> None:
    packed = pack_mask(np.array(mask, dtype=bool))
    assert len(packed) == packed_bytes(len(mask), 1)
    assert unpack_mask(packed, len(mask)).tolist() == mask


def test_codes_lie_little_end_first() -> None:
    assert pack(np.array([0x1, 0x2, 0x3], dtype=np.uint8), 4).tolist() == [0x21, 0x03]
    assert pack(np.array([1, 2, 3, 4, 5, 6, 7, 0], dtype=np.uint8), 3).tolist() == [0b11010001, 0b01011000, 0b00011111]
