"""Size of a packed file after zstd: how much redundancy the encodings leave."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from zstandard import ZstdCompressor

LEVEL = 3
"""zstd's own default: fast enough for every cell of a grid."""
_CHUNK = 1 << 20


def zstd_bytes(path: Path, embeddings: Collection[str]) -> tuple[int, int]:
    """Bytes of a packed file after zstd at its default level, with and without the payload of its embeddings.

    Args:
        path: a packed file.
        embeddings: names of the tensors that are left out of the second count.
    """
    # zstd lets other threads of Python run.
    with ThreadPoolExecutor(2) as pool:
        whole, body = pool.map(lambda without: _compressed_bytes(path, without), ((), embeddings))
    return whole, body


def _compressed_bytes(path: Path, without: Collection[str]) -> int:
    compressor = ZstdCompressor(level=LEVEL).compressobj()
    with path.open("rb") as file:
        return sum(len(compressor.compress(piece)) for piece in _pieces(file, without)) + len(compressor.flush())


def _pieces(file: BinaryIO, without: Collection[str]) -> Iterator[bytes]:
    """The header, then the payload of every part that stays, a little at a time."""
    length = file.read(8)
    header = file.read(*struct.unpack("<Q", length))
    yield length + header
    begin = 8 + len(header)
    for name, entry in json.loads(header).items():
        if name != "__metadata__" and name.partition(":")[0] not in without:
            first, last = entry["data_offsets"]
            file.seek(begin + first)
            for at in range(first, last, _CHUNK):
                yield file.read(min(_CHUNK, last - at))
