"""The container of a packed file: safetensors with a format version and a checksum.

It is written completely or not at all.

Layout (https://huggingface.co/docs/safetensors): 8 bytes length of the header, JSON header, tensors without gaps. The
header is written here and not by the library, so that the exact size of a file is known before anything is encoded.
Every safetensors reader can read it.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import BinaryIO, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainlarge.config.group import Plain
from trainlarge.errors import UserError
from trainlarge.sweep.files import replacing

FORMAT = 1
"""Version of the packed file; it grows when a reader of the old format would misread the new one."""

_FORMAT_NUMBER, _CHECKSUM = re.compile(r"[0-9]{1,9}"), re.compile(r"[0-9a-f]{64}")
_BLANK = "0" * 64
_CHUNK = 1 << 20
DTYPES = {
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
class TensorSpec:
    """Data type and shape of a tensor in the file, known before it is encoded."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSpec:
        """The data type and shape of ``tensor``."""
        return cls(tensor.dtype, tuple(tensor.shape))

    @property
    def bytes(self) -> int:
        """Bytes of the values."""
        return prod(self.shape) * self.dtype.itemsize


Layout = dict[str, TensorSpec]
"""Name -> data type and shape of a tensor in the file."""


class _OpenFile(Protocol):
    """What is used of an open file of safetensors, which has no types."""

    def metadata(self) -> dict[str, str] | None: ...

    def keys(self) -> list[str]: ...

    def get_tensor(self, name: str) -> Tensor: ...


def file_bytes(body: Mapping[str, object], layout: Mapping[str, TensorSpec]) -> int:
    """Exact size of the file that ``write`` makes of tensors with this layout."""
    return len(_header(body, layout, _BLANK)) + sum(spec.bytes for spec in layout.values())


def write(path: Path, body: Mapping[str, object], layout: Layout, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write ``body`` (JSON data) and tensors (on the CPU) as one file.

    The file appears under its name only when it is complete and on the disk; after an error an older file is untouched.

    Args:
        layout: data type and shape of every tensor.
        tensors: (name, tensor) of each, in any order: one at a time, so that they need not be in memory together.

    Raises ValueError where a tensor is not what ``layout`` says.
    """
    blank = _header(body, layout, _BLANK)
    offsets = _offsets(layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("x+b") as file:
        file.write(blank)
        written: Layout = {}
        for name, tensor in tensors:
            written[name] = TensorSpec.of(tensor)
            file.seek(len(blank) + offsets[name])
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for name, spec in layout.items():
            if written.get(name) != spec:
                raise ValueError(f"{name}: {written.get(name)} is not {spec}")
        file.seek(len(blank))
        checksum = _digest(blank, _chunks(file))
        file.seek(0)
        file.write(_header(body, layout, checksum))


def read_body(path: Path) -> dict[str, Plain]:
    """The JSON data of a file, without its tensors and without checking them. A file may claim anything."""
    with _open(path) as file:
        return _body(path, _metadata(path, file))


def read(path: Path) -> tuple[dict[str, Plain], dict[str, Tensor]]:
    """JSON data and tensors of a file.

    Raises UserError for a file that is missing, truncated, damaged, of a newer format or not a packed file.
    """
    with _open(path) as file:
        metadata = _metadata(path, file)
        _check_digest(path, metadata["checksum"])
        return _body(path, metadata), {name: _tensor(path, file, name) for name in file.keys()}  # noqa: SIM118


def _header(body: Mapping[str, object], layout: Mapping[str, TensorSpec], checksum: str) -> bytes:
    metadata = {"format": str(FORMAT), "checksum": checksum, "packed": _json(body)}
    entries: dict[str, object] = {"__metadata__": metadata}
    for name, begin in _offsets(layout).items():
        spec = layout[name]
        if spec.dtype not in DTYPES:
            raise UserError("weights.dtype", spec.dtype, f"one of {', '.join(map(str, DTYPES))}")
        span = [begin, begin + spec.bytes]
        entries[name] = {"dtype": DTYPES[spec.dtype], "shape": spec.shape, "data_offsets": span}
    text = _json(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _offsets(layout: Mapping[str, TensorSpec]) -> dict[str, int]:
    """Name -> offset of its values after the header: wide data types first, so that every tensor is aligned."""
    names = sorted(layout, key=lambda name: -layout[name].dtype.itemsize)
    ends = accumulate(layout[name].bytes for name in names)
    return {name: end - layout[name].bytes for name, end in zip(names, ends, strict=True)}


def _json(data: object) -> str:
    return json.dumps(data, separators=(",", ":"))


def _digest(header: bytes, payload: Iterable[bytes]) -> str:
    """SHA-256 over header (with a blank in place of the checksum) and payload."""
    sha = hashlib.sha256(header)
    for piece in payload:
        sha.update(piece)
    return sha.hexdigest()


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """The rest of a file in pieces."""
    return iter(lambda: file.read(_CHUNK), b"")


def _open(path: Path) -> AbstractContextManager[_OpenFile]:
    if not path.is_file():
        raise UserError("packed", path, "an existing packed file")
    try:
        file: AbstractContextManager[_OpenFile] = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise UserError("packed", path, f"a complete packed file, not a truncated or damaged one ({error})") from error
    return file


def _body(path: Path, metadata: Mapping[str, str]) -> dict[str, Plain]:
    try:
        body = json.loads(metadata["packed"])
    except (ValueError, RecursionError) as error:
        raise UserError("packed", path, f"a file as save_packed writes it ({type(error).__name__})") from error
    if not isinstance(body, dict):
        raise UserError("packed", path, "a file as save_packed writes it, with a mapping as its data")
    return body


def _tensor(path: Path, file: _OpenFile, name: str) -> Tensor:
    try:
        return file.get_tensor(name)
    except Exception as error:  # by the library's own classes, for types that torch does not have
        raise UserError("packed", path, f"a file of tensors that torch can hold, unlike {name}") from error


def _metadata(path: Path, file: _OpenFile) -> dict[str, str]:
    metadata = file.metadata() or {}
    if not {"format", "checksum", "packed"} <= set(metadata):
        raise UserError("packed", path, "a file that save_packed wrote")
    if not _FORMAT_NUMBER.fullmatch(metadata["format"]) or int(metadata["format"]) > FORMAT:
        raise UserError("packed", path, f"a packed file of format {FORMAT} or older, not {metadata['format'][:9]}")
    if not _CHECKSUM.fullmatch(metadata["checksum"]):
        raise UserError("packed", path, "a packed file with its checksum")
    return metadata


def _check_digest(path: Path, checksum: str) -> None:
    with path.open("rb") as file:
        length = file.read(8)
        header = length + file.read(struct.unpack("<Q", length)[0])
        actual = _digest(header.replace(checksum.encode(), _BLANK.encode()), _chunks(file))
    if actual != checksum:
        raise UserError("packed", path, "an undamaged packed file: its checksum does not match")
