"""Token files: all ids of a split in one flat array on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from trainlarge.data.arrays import TokenDtype, Tokens
from trainlarge.data.tokenizer import SEP_ID
from trainlarge.sweep.files import flush

LONG_CHARACTERS = 1_000_000
"""From which a document is called very long: a book, and more often several documents in one row by mistake."""
BATCH_CHARACTERS = 4_000_000
"""Text encoded at a time: bounds memory, and is enough work for every core."""


@dataclass
class TokenCounts:
    """What was written to a token file."""

    documents: int = 0
    """Documents, each closed by one ``[SEP]``."""
    characters: int = 0
    """Unicode characters of the documents."""
    tokens: int = 0
    """Ids in the file, ``[SEP]`` counted."""
    sha256: str = ""
    """SHA-256 of the file, 64 hex digits; empty for a part of one."""
    longest: int | None = None
    """Characters of the longest document; None where it was prepared before they were counted."""
    long_documents: int | None = None
    """Documents of at least ``LONG_CHARACTERS`` characters; None as above."""

    def add(self, documents: Sequence[str], tokens: int) -> None:
        """Count documents that were encoded as so many tokens."""
        lengths = [len(text) for text in documents]
        self.documents += len(documents)
        self.characters += sum(lengths)
        self.tokens += tokens
        self.longest = max(lengths, default=0) if self.longest is None else max([self.longest, *lengths])
        self.long_documents = (self.long_documents or 0) + sum(length >= LONG_CHARACTERS for length in lengths)


def id_dtype(vocab_size: int) -> TokenDtype:
    """Smallest little-endian unsigned type for the ids: uint16 up to a vocabulary of 65535, else uint32."""
    return "<u2" if vocab_size <= np.iinfo(np.uint16).max else "<u4"


def write_tokens(
    path: Path, documents: Iterable[str], tokenizer: Tokenizer, dtype: TokenDtype, sep_id: int = SEP_ID
) -> TokenCounts:
    """Encode documents, each followed by ``[SEP]``, and write their ids one after the other; bounded memory."""
    return write_parts(path, {"": documents}, tokenizer, dtype, sep_id)[0]


def write_parts(
    path: Path, parts: Mapping[str, Iterable[str]], tokenizer: Tokenizer, dtype: TokenDtype, sep_id: int = SEP_ID
) -> tuple[TokenCounts, dict[str, TokenCounts]]:
    """As ``write_tokens``, for the documents of several parts, one part after the other.

    Returns:
        What the file holds, and what it holds of each part.
    """
    whole, of_parts, digest = TokenCounts(), {name: TokenCounts() for name in parts}, hashlib.sha256()
    with path.open("wb") as file:
        for name, documents in parts.items():
            for batch in batches(documents, BATCH_CHARACTERS):
                encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
                ids = np.concatenate([np.array([*encoding.ids, sep_id], dtype) for encoding in encodings])
                digest.update(ids.data)
                file.write(ids.data)
                for counts in (whole, of_parts[name]):
                    counts.add(batch, len(ids))
    flush(path)
    whole.sha256 = digest.hexdigest()
    return whole, of_parts


def open_tokens(path: Path, dtype: TokenDtype) -> Tokens:
    """Read-only view of a token file, shape [tokens]; nothing is read yet."""
    return np.memmap(path, dtype=dtype, mode="r")


def batches(documents: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Consecutive documents in lists that hold about ``characters`` characters each."""
    batch: list[str] = []
    size = 0
    for text in documents:
        batch.append(text)
        size += len(text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
