"""Tensors in memory-mapped pages.

Their memory returns to the system at once; freed heap memory might stay with the process, because small blocks between
large ones keep it.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO

import torch
from torch import Tensor

_ALIGNMENT = 64
"""Bytes; as torch aligns tensors on the CPU, so that products of them are computed in the same way."""
_PAGES = "pages_of_a_file"
"""Attribute of a tensor of ``TensorsOnDisk``: its pages."""


class TensorsOnDisk(Mapping[str, Tensor]):
    """A copy of tensors in a file without a name, which the system removes with the process.

    They are tensors like others, on the CPU. Read only: what is written to one may be lost (see ``read``). The file is
    in the folder of the environment variable ``TMPDIR``.

    Raises OSError where there is no room for the file.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        with tempfile.TemporaryFile(prefix="trainlarge-") as file:
            _write(file, tensors)
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._tensors = _tensors_in(pages, tensors)
        for tensor in self._tensors.values():
            setattr(tensor, _PAGES, pages)

    def __getitem__(self, name: str) -> Tensor:
        return read(self._tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def read(tensor: Tensor) -> Tensor:
    """Return the tensor. If it is of ``TensorsOnDisk``, release the pages of all its tensors that were read earlier.

    Pages that are still in use are read from the file again.
    """
    pages = getattr(tensor, _PAGES, None)
    if pages is not None:
        release(pages)
    return tensor


def zeros_in_pages(like: Mapping[str, Tensor]) -> tuple[mmap.mmap, dict[str, Tensor]]:
    """Pages of main memory, and in them tensors of the same names, shapes and data types.

    They are 0, also after ``release``.
    """
    pages = mmap.mmap(-1, _size(like), access=mmap.ACCESS_COPY)
    return pages, _tensors_in(pages, like)


def release(pages: mmap.mmap) -> None:
    """Return the memory of all pages to the system; pages of a file are read again when they are used.

    Does nothing where the system has no such call.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _tensors_in(pages: mmap.mmap, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same names, shapes and data types in ``pages``, one after the other."""
    starts = _starts(like)
    return {name: _tensor_at(pages, starts[name], tensor) for name, tensor in like.items()}


def _tensor_at(pages: mmap.mmap, start: int, like: Tensor) -> Tensor:
    if not like.numel():
        return torch.empty(like.shape, dtype=like.dtype)
    return torch.frombuffer(pages, dtype=like.dtype, count=like.numel(), offset=start).view(like.shape)


def _write(file: IO[bytes], tensors: Mapping[str, Tensor]) -> None:
    starts = _starts(tensors)
    for name, tensor in tensors.items():
        file.seek(starts[name])
        file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    file.truncate(_size(tensors))
    file.flush()


def _starts(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Name -> first byte."""
    starts, end = {}, 0
    for name, tensor in tensors.items():
        starts[name] = end
        end += _aligned(tensor.nbytes)
    return starts


def _size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of all tensors; at least one, since an empty file cannot be mapped."""
    return max(sum(_aligned(tensor.nbytes) for tensor in tensors.values()), 1)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
