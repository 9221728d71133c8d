"""What a corpus is, the registry that finds one by ``data.name``, and the ``data`` group of a new cell."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import ClassVar, Protocol

from trainlarge.config.data import DataConfig, Split
from trainlarge.config.group import Plain
from trainlarge.data.hub import HubText
from trainlarge.data.mixture import Mixture, Part, named
from trainlarge.data.rows import RowCounts
from trainlarge.data.stdlib import Stdlib
from trainlarge.data.text import TextFiles
from trainlarge.errors import UserError


class Corpus(Protocol):
    """Text for pretraining, cut into documents and divided into two disjoint splits.

    A corpus is hashable and cheap to make: it holds names and settings, never text.
    """

    VERSION: ClassVar[int]
    """Version of its reader: raised when the same contents would give other documents."""

    def documents(self, split: Split, counts: RowCounts | None = None) -> Iterator[str]:
        """Documents of one split, none of them blank, in an order that ``contents`` determines.

        ``counts`` takes up what is read on the way.
        """
        ...

    def contents(self) -> dict[str, Plain]:
        """Plain description (JSON types) of all that determines the documents: the split rule and file digests."""
        ...

    def stamp(self) -> Hashable:
        """Cheap value that changes whenever ``contents`` may have changed."""
        ...

    def needs(self, key: str) -> str | None:
        """None where the corpus looks at ``data.<key>``, else what would have to be so that it did (``data=text``)."""
        ...

    def __hash__(self) -> int: ...


CorpusType = type[Stdlib] | type[TextFiles] | type[HubText]
CORPORA: dict[str, Callable[[DataConfig], CorpusType]] = {
    "stdlib": lambda _data: Stdlib,
    "text": lambda data: HubText if data.hub else TextFiles,
}
"""Class of the corpus of a ``data`` group without sources by its name."""
HELD_OUT: Split = "validation"
"""The split in which all documents of an evaluation text are."""
ALWAYS_READ = frozenset(
    {"name", "fraction", "vocab_size", "sequence_length", "fingerprint", "evaluations", "evaluations_fingerprint"}
)
"""Keys of the group ``data`` that mean the same for every corpus."""


def corpus(data: DataConfig) -> Corpus:
    """Corpus that a cell's ``data`` group describes.

    Raises:
        UserError: a setting is wrong for that corpus.
    """
    if not data.sources:
        return CORPORA[data.name](data).from_data(data)
    sources = []
    for name, source in sorted(data.sources.items()):
        with named(f"data.sources.{name}"):
            sources.append((name, corpus(data.of(source))))
    return Mixture(tuple(sources))


def evaluation_text(data: DataConfig, name: str) -> Corpus:
    """The text of one of ``data.evaluations``, all of whose documents are in its split ``validation``.

    That is all of its files, or what its Hub data set or the standard library holds out.

    Raises:
        UserError: naming the key.
    """
    with named(f"data.evaluations.{name}"):
        source = corpus(data.of(data.evaluations[name]))
    return replace(source, validation_files=source.files, files=()) if isinstance(source, TextFiles) else source


def parts_of(source: Corpus) -> Mapping[str, Corpus | Part]:
    """The sources of a mixture by their names; a corpus that is no mixture is one without a name."""
    return source.parts() if isinstance(source, Mixture) else {"": source}


def reader_version(data: DataConfig) -> int:
    """Version of the readers of a ``data`` group: another number whenever one of them was raised. No file is read."""
    if not data.sources:
        return CORPORA[data.name](data).VERSION
    return Mixture.VERSION + sum(reader_version(data.of(source)) for source in data.sources.values())


def check_keys(data: DataConfig) -> None:
    """Refuse a key that is set and that the corpus does not look at: it would be lost without a word.

    Raises:
        UserError: naming it, and what it needs.
    """
    given = [key for key, default in _defaults().items() if data.plain[key] != default]
    if not given:
        return
    source = corpus(data)
    for key in given:
        if needed := source.needs(key):
            default = _defaults()[key]
            value = "null" if default is None else default
            raise UserError(f"data.{key}", data.plain[key], f"{value} unless {needed}")


@cache
def _defaults() -> dict[str, Plain]:
    """The keys that a corpus may not look at, with their defaults."""
    return {key: value for key, value in DataConfig().plain.items() if key not in ALWAYS_READ}
