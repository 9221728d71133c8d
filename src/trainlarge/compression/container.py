"""The container of a packed file: safetensors, with a format version and a checksum, written whole or not at all.

Layout (https://huggingface.co/docs/safetensors): 8 bytes length of the header, JSON header, tensors without gaps. The
header is written here and not by the library, so that the exact size of a file is known before anything is encoded; the
library reads it, and so does every other safetensors reader.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainlarge.errors import UserError
from trainlarge.sweep.files import replacing

FORMAT = 1
"""Version of the packed file; it grows when a reader of the old format would misread the new one."""

_BLANK = "0" * 64
_CHUNK = 1 << 20
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Part:
    """What is known of a tensor in the file without its values."""

    dtype: torch.dtype
    """Its data type."""

    shape: tuple[int, ...]
    """Its shape."""

    @property
    def bytes(self) -> int:
        """Bytes of its values."""
        return prod(self.shape) * self.dtype.itemsize


Parts = dict[str, Part]
"""Name -> part."""


def file_bytes(body: Mapping[str, Any], parts: Mapping[str, Part]) -> int:
    """Exact size of the file that ``write`` makes of tensors with this layout."""
    return len(_header(body, parts, _BLANK)) + sum(part.bytes for part in parts.values())


def write(path: Path, body: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write ``body`` (JSON data) and tensors (on the CPU) as one file.

    The file appears under its name only when it is complete and on the disk; after an error an older file is untouched.
    """
    parts = {name: Part(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    payload = [memoryview(_raw(tensors[name])) for name in _in_file_order(parts)]
    checksum = _digest(_header(body, parts, _BLANK), payload)
    _write_atomically(path, [_header(body, parts, checksum), *payload])


def read_body(path: Path) -> dict[str, Any]:
    """The JSON data of a file, without its tensors and without checking them."""
    with _open(path) as file:
        return json.loads(_metadata(path, file)["packed"])


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """JSON data and tensors of a file.

    Raises UserError for a file that is missing, truncated, damaged, of a newer format or not a packed file.
    """
    with _open(path) as file:
        metadata = _metadata(path, file)
        _check_digest(path, metadata["checksum"])
        return json.loads(metadata["packed"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _header(body: Mapping[str, Any], parts: Mapping[str, Part], checksum: str) -> bytes:
    metadata = {"format": str(FORMAT), "checksum": checksum, "packed": _json(body)}
    entries: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for name in _in_file_order(parts):
        end = begin + parts[name].bytes
        entries[name] = {"dtype": _dtype_name(parts[name]), "shape": parts[name].shape, "data_offsets": [begin, end]}
        begin = end
    text = _json(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _in_file_order(parts: Mapping[str, Part]) -> list[str]:
    """Wide data types first, so that every tensor is aligned."""
    return sorted(parts, key=lambda name: -parts[name].dtype.itemsize)


def _dtype_name(part: Part) -> str:
    if part.dtype not in _DTYPES:
        raise UserError("weights.dtype", part.dtype, f"one of {', '.join(map(str, _DTYPES))}")
    return _DTYPES[part.dtype]


def _json(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"))


def _raw(tensor: Tensor) -> Any:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


def _digest(header: bytes, payload: Iterable[Any]) -> str:
    """SHA-256 over header (with a blank in place of the checksum) and payload."""
    sha = hashlib.sha256(header)
    for piece in payload:
        sha.update(piece)
    return sha.hexdigest()


def _write_atomically(path: Path, pieces: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("xb") as file:
        for piece in pieces:
            file.write(piece)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise UserError("packed", path, "an existing packed file")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise UserError("packed", path, f"a complete packed file, not a truncated or damaged one ({error})") from error


def _metadata(path: Path, file: Any) -> dict[str, str]:
    metadata = file.metadata() or {}
    if not {"format", "checksum", "packed"} <= set(metadata):
        raise UserError("packed", path, "a file that save_packed wrote")
    if not metadata["format"].isdigit() or int(metadata["format"]) > FORMAT:
        raise UserError("packed", path, f"a packed file of format {FORMAT} or older, not {metadata['format']}")
    return metadata


def _check_digest(path: Path, checksum: str) -> None:
    with path.open("rb") as file:
        length = file.read(8)
        header = length + file.read(struct.unpack("<Q", length)[0])
        found = _digest(header.replace(checksum.encode(), _BLANK.encode()), iter(lambda: file.read(_CHUNK), b""))
    if found != checksum:
        raise UserError("packed", path, "an undamaged packed file: its checksum does not match")
