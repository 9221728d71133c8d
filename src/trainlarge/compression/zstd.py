"""What zstd makes of a packed file: how much the encodings leave on the table."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection
from pathlib import Path

from zstandard import ZstdCompressor

LEVEL = 3
"""zstd's own default: fast enough for every cell of a grid."""


def zstd_bytes(path: Path, without: Collection[str] = ()) -> int:
    """Bytes of a packed file after zstd at its default level.

    Args:
        path: a packed file.
        without: names of tensors whose payload is left out.
    """
    content = memoryview(path.read_bytes())
    compressor = ZstdCompressor(level=LEVEL).compressobj()
    return sum(len(compressor.compress(piece)) for piece in _pieces(content, without)) + len(compressor.flush())


def _pieces(content: memoryview, without: Collection[str]) -> list[memoryview]:
    """The header, then the payload of every part that stays."""
    (length,) = struct.unpack("<Q", content[:8])
    begin = 8 + length
    entries = json.loads(bytes(content[8:begin]))
    kept = [
        content[begin + entry["data_offsets"][0] : begin + entry["data_offsets"][1]]
        for name, entry in entries.items()
        if name != "__metadata__" and name.partition(":")[0] not in without
    ]
    return [content[:begin], *kept]
