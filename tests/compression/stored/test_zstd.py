"""What zstd makes of a packed file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from zstandard import ZstdCompressor

from trainlarge.compression.stored import container
from trainlarge.compression.stored.zstd import LEVEL, zstd_bytes

TENSORS = {
    "table:codes": torch.randint(0, 9, (50_000,), dtype=torch.uint8),
    "body": torch.randn(3000),
    "none": torch.zeros(0),
}


def test_counts_with_and_without_some_tensors(tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    container.write(
        path, {}, {name: container.TensorSpec.of(tensor) for name, tensor in TENSORS.items()}, TENSORS.items()
    )
    assert zstd_bytes(path, {"table"}) == (_count(path, [*TENSORS]), _count(path, ["body", "none"]))
    assert zstd_bytes(path, ()) == (_count(path, [*TENSORS]),) * 2


def _count(path: Path, names: list[str]) -> int:
    """Bytes of the header and of the payload of these tensors, compressed as one stream."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    head, payload = content[: 8 + length], content[8 + length :]
    spans = [entry["data_offsets"] for name, entry in json.loads(head[8:]).items() if name in names]
    compressor = ZstdCompressor(level=LEVEL).compressobj()
    stream = head + b"".join(payload[begin:end] for begin, end in spans)
    return len(compressor.compress(stream)) + len(compressor.flush())
