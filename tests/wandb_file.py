"""Reads the file of an offline W&B run: a LevelDB log of protocol-buffer records after a header of seven bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

HEADER, BLOCK = 7, 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    """The records of a ``.wandb`` file, in order."""
    content, position, parts = path.read_bytes(), HEADER, b""
    while position + 7 <= len(content):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def items(update: Any) -> dict[str, Any]:
    """The keys and values of a history row, a summary update or a configuration."""
    entries = getattr(update, "item", None) or update.update
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in entries}
