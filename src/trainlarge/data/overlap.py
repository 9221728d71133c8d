"""How much of the validation text also occurs in the training text: whole documents, and passages of 50 bytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainlarge.data.arrays import Integers
from trainlarge.data.document_keys import Hashes, document_key, shortened
from trainlarge.data.split import normalized
from trainlarge.data.tokens import batches

PASSAGE = 50
"""Bytes of a passage (characters, in ASCII) with its white space normalised: the length by which GPT-4's report looks
for text that a model has seen (OpenAI 2023, appendix C)."""
MOST_PASSAGES = 50_000
"""Passages that are looked for, at even distances in the validation text: a share of them is exact to 0.005."""
BATCH_CHARACTERS = 1 << 16
"""Text that is searched at a time: its hashes stay in the cache of a core."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_BETWEEN = b"\x00"
"""Stands between documents, so that no passage crosses from one into another."""
_FILTER_BITS = 22


@dataclass(frozen=True)
class Overlap:
    """What validation and training have in common, whatever the white space."""

    validation_documents: int
    """Documents of the validation split."""
    duplicates: int
    """Those of them that are in the training split as a whole."""
    passages: int
    """Passages of the validation split that were looked for."""
    passages_in_training: int
    """Those of them that stand somewhere in the training split."""
    training_documents: int = 0
    """Documents of the training split; 0 where it was prepared before repeated ones were counted."""
    repeated: int = 0
    """Those of them that are the same as one before them."""

    def shares(self) -> dict[str, float | None]:
        """The same as shares, for records; None where there is nothing to take a share of."""
        return {
            "overlap_documents": self.duplicates / self.validation_documents if self.validation_documents else None,
            "overlap_passages": self.passages_in_training / self.passages if self.passages else None,
            "repeated_documents": self.repeated / self.training_documents if self.training_documents else None,
        }


@dataclass(frozen=True)
class PartOverlap:
    """The same of one of several parts of the text."""

    duplicates: int
    """Its validation documents that are in the training split of any part."""
    repeated: int
    """Its training documents that are the same as one before them, in this part or one before it."""


@dataclass
class OverlapCounter:
    """Counts the overlap while documents go by: first all of validation, then all of training.

    Memory: some 100 bytes for each validation document, 8 for each 50 bytes of its text, 8 for each training document,
    and a table of 4 MB.
    """

    _documents: list[dict[bytes, int]] = field(default_factory=list)
    """Of each part: key of a validation document -> how often it is there."""
    _duplicates: set[bytes] = field(default_factory=set)
    _trained: array[int] = field(default_factory=lambda: array("Q"))
    """Short key of each training document."""
    _ends: list[int] = field(default_factory=list)
    """Training documents up to the end of each part."""
    _held_out: list[Hashes] = field(default_factory=list)
    """Passages of the validation documents, until a sample of them is taken."""
    _passages: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    """The passages to look for, ascending, each once."""
    _counts: Integers = field(default_factory=lambda: np.empty(0, np.int64))
    """How often each is there."""
    _is_found: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    _filter: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1 << _FILTER_BITS, bool))
    """Whether a passage with such leading bits is looked for: most of the training text is passed over by it."""

    def validation(self, documents: Iterable[str]) -> Iterator[str]:
        """The same documents, taken up as those of validation, or of the next part of it."""
        counts: dict[bytes, int] = {}
        self._documents.append(counts)
        for batch in batches(documents, BATCH_CHARACTERS):
            contents = _contents(batch)
            for content in contents:
                key = document_key(content)
                counts[key] = counts.get(key, 0) + 1
            self._held_out.append(_passages(_BETWEEN.join(contents))[_starts(contents)])
            yield from batch

    def training(self, documents: Iterable[str]) -> Iterator[str]:
        """The same documents, or those of the next part of training, searched for those of validation."""
        self._take_sample()
        for batch in batches(documents, BATCH_CHARACTERS):
            contents = _contents(batch)
            keys = list(map(document_key, contents))
            self._trained.extend(map(shortened, keys))
            for counts in self._documents:
                self._duplicates |= counts.keys() & set(keys)
            self._search(_passages(_BETWEEN.join(contents)))
            yield from batch
        self._ends.append(len(self._trained))

    def result(self) -> Overlap:
        """The overlap, when both splits have gone by."""
        parts = self.of_parts()
        self._take_sample()
        count, in_training = self._counts.sum(), self._counts[self._is_found].sum()
        return Overlap(
            validation_documents=sum(sum(counts.values()) for counts in self._documents),
            duplicates=sum(part.duplicates for part in parts),
            passages=int(count),
            passages_in_training=int(in_training),
            training_documents=len(self._trained),
            repeated=sum(part.repeated for part in parts),
        )

    def of_parts(self) -> list[PartOverlap]:
        """That of each part, in the order in which they went by."""
        _, first = np.unique(self._keys(), return_index=True)
        ends = [0, *self._ends]
        repeated = np.diff(ends) - np.diff(np.searchsorted(np.sort(first), ends))
        duplicates = [sum(counts[key] for key in counts.keys() & self._duplicates) for counts in self._documents]
        return [PartOverlap(*part) for part in zip(duplicates, repeated.tolist(), strict=True)]

    def training_keys(self) -> Hashes:
        """The short key of each different training document, ascending."""
        return np.unique(self._keys())

    def _keys(self) -> Hashes:
        return np.frombuffer(self._trained, np.uint64) if self._trained else np.empty(0, np.uint64)

    def _take_sample(self) -> None:
        """Choose the passages to look for, once all of validation has gone by."""
        if not self._held_out:
            return
        passages = np.concatenate(self._held_out)
        self._held_out.clear()
        kept = min(len(passages), MOST_PASSAGES)
        sample = passages[np.arange(kept) * len(passages) // max(kept, 1)]
        self._passages, self._counts = np.unique(sample, return_counts=True)
        self._is_found = np.zeros(len(self._passages), bool)
        self._filter[_slots(self._passages)] = True

    def _search(self, passages: Hashes) -> None:
        likely = passages[self._filter[_slots(passages)]]
        if len(self._passages):
            places = np.minimum(np.searchsorted(self._passages, likely), len(self._passages) - 1)
            self._is_found[places[self._passages[places] == likely]] = True


def _contents(documents: Iterable[str]) -> list[bytes]:
    return [normalized(text).encode() for text in documents]


def _passages(text: bytes) -> Hashes:
    """Hash of the passage that begins at each byte, as far as there are whole ones.

    It is a polynomial in ``_BASE``, computed from those of 2, 16 and 32 bytes.
    """
    sums = {1: np.frombuffer(text, np.uint8).astype(np.uint64) + np.uint64(1)}
    for length in (1, 2, 4, 8, 16):
        sums[2 * length] = _joined(sums[length], length, sums[length], length)
    whole = _joined(_joined(sums[32], 32, sums[16], 16), 48, sums[2], 2)
    return (whole ^ (whole >> np.uint64(32))) * _MIX


def _joined(left: Hashes, length: int, right: Hashes, more: int) -> Hashes:
    """Hashes of ``length + more`` bytes from those of ``length`` and of the ``more`` bytes behind."""
    count = max(len(right) - length, 0)
    return left[:count] * np.uint64(pow(int(_BASE), more, 1 << 64)) + right[length : length + count]


def _starts(contents: list[bytes]) -> Integers:
    """Where passages begin that follow each other within the documents."""
    ends = np.cumsum([0, *(len(content) + len(_BETWEEN) for content in contents)])
    places = [np.arange(end, end + len(content) - PASSAGE + 1, PASSAGE) for end, content in zip(ends, contents)]  # noqa: B905 - one more end
    return np.concatenate([np.empty(0, np.int64), *places])


def _slots(passages: Hashes) -> Hashes:
    return passages >> np.uint64(64 - _FILTER_BITS)
