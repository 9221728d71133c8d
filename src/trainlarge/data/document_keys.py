"""What tells documents from others whatever their white space, and the files in which that is kept."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainlarge.data.kept import FileDigest, check_digest
from trainlarge.data.split import normalized
from trainlarge.sweep.digest import file_digest
from trainlarge.sweep.files import flush

KEYS = "document_keys.npy"
"""File of the short keys of the documents of prepared data."""
Hashes = NDArray[np.uint64]


def document_key(content: bytes) -> bytes:
    """The key of a document, 16 bytes.

    Args:
        content: its normalized text.
    """
    return hashlib.blake2b(content, digest_size=16).digest()


def shortened(key: bytes) -> int:
    """The first 64 bits of a key: enough to count by, half the memory."""
    return int.from_bytes(key[:8], "big")


def keyed(documents: Iterable[str], keys: array[int]) -> Iterator[str]:
    """The same documents, whose short keys are added to ``keys``."""
    for text in documents:
        keys.append(shortened(document_key(normalized(text).encode())))
        yield text


def write_keys(folder: Path, keys: Hashes) -> FileDigest:
    """Keep short keys of documents in a folder of prepared data; the digest of the file."""
    np.save(folder / KEYS, keys, allow_pickle=False)
    flush(folder / KEYS)
    return FileDigest(file_digest(folder / KEYS))


def open_keys(folder: Path, kept: FileDigest) -> Hashes | None:
    """The short keys in a folder of prepared data; None where none were kept.

    Raises:
        OSError, ValueError: they are not as they were written.
    """
    if kept.sha256 is None:
        return None
    check_digest(folder / KEYS, kept.sha256)
    keys: Hashes = np.load(folder / KEYS, allow_pickle=False)
    return keys
