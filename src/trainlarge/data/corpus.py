"""What a corpus is, and the registry that finds one by ``data.name``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol

from trainlarge.data.split import Split
from trainlarge.data.stdlib import Stdlib
from trainlarge.data.text import text_corpus
from trainlarge.errors import UserError


class Corpus(Protocol):
    """Text for pretraining, cut into documents and divided into two disjoint splits.

    A corpus is hashable and cheap to make: it holds names and settings, never text.
    """

    def documents(self, split: Split) -> Iterator[str]:
        """Documents of one split, none of them blank, in an order that ``contents`` determines."""
        ...

    def contents(self) -> dict[str, Any]:
        """Plain description (JSON types) of all that determines the documents: the split rule and file digests."""
        ...

    def stamp(self) -> Hashable:
        """Cheap value that changes whenever ``contents`` may have changed."""
        ...

    def __hash__(self) -> int: ...


CORPORA: dict[str, Callable[[dict[str, Any]], Corpus]] = {"stdlib": Stdlib.from_data, "text": text_corpus}
"""Corpus of a ``data`` group by its name."""


def corpus(data: dict[str, Any]) -> Corpus:
    """Corpus that a cell's ``data`` group describes.

    Raises:
        UserError: the name is unknown, or a setting is wrong for that corpus.
    """
    if data.get("name") not in CORPORA:
        raise UserError("data.name", data.get("name"), "one of " + ", ".join(sorted(CORPORA)))
    return CORPORA[data["name"]](data)
