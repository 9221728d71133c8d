"""Several texts as one corpus: ``data.sources``."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainlarge.config.data import Split
from trainlarge.config.group import Plain
from trainlarge.data.rows import RowCounts
from trainlarge.data.text import TRAINED_ELSEWHERE, TextFiles
from trainlarge.errors import UserError

if TYPE_CHECKING:
    from trainlarge.data.corpus import Corpus


@dataclass(frozen=True)
class Mixture:
    """The documents of several sources, one source after the other in the order of their names.

    Each is divided into training and validation as if it were alone. How often the rows of each are trained on is no
    matter of the corpus: see ``trainlarge.data.mixed_blocks``. So the tokenizer, the token files and the validation
    text are the same whatever the weights are.
    """

    VERSION: ClassVar[int] = 1
    """Raised when the same sources would give other documents; those of the sources count too."""

    sources: tuple[tuple[str, Corpus], ...]
    """Name and text of each, by name."""

    def documents(self, split: Split, counts: RowCounts | None = None) -> Iterator[str]:
        """Documents of the split.

        Raises:
            UserError: naming the key of the source.
        """
        for part in self.parts().values():
            yield from part.documents(split, counts)

    def parts(self) -> dict[str, Part]:
        """Name -> source."""
        return {name: Part(name, source) for name, source in self.sources}

    def contents(self) -> dict[str, Plain]:
        """Name and contents of each source.

        Raises:
            UserError: a file cannot be read, or is trained on in one source and validates in another.
        """
        trained = trained_files(self)
        sources: dict[str, Plain] = {}
        for name, source in self.sources:
            with named(f"data.sources.{name}"):
                sources[name] = source.contents()
                if isinstance(source, TextFiles):
                    source.check_held_out(trained)
        return {"corpus": "sources", "sources": sources}

    def stamp(self) -> Hashable:
        """Stamps of all sources."""
        return tuple(source.stamp() for _, source in self.sources)

    @property
    def size(self) -> int | None:
        """Bytes of the files of all sources; None where it is not known of some."""
        sizes = [getattr(source, "size", None) for _, source in self.sources]
        return None if None in sizes else sum(filter(None, sizes))

    @property
    def text_bytes(self) -> int | None:
        """Bytes of the text of all sources; None where it is not known of some."""
        sizes = [getattr(source, "text_bytes", None) for _, source in self.sources]
        return None if None in sizes else sum(filter(None, sizes))

    def needs(self, key: str) -> str | None:
        """None where any source looks at ``data.<key>``."""
        if key == "sources":
            return None
        needed = [source.needs(key) for _, source in self.sources]
        return next(iter(needed)) if all(needed) else None


@dataclass(frozen=True)
class Part:
    """One source, whose errors name its keys."""

    name: str
    """Its name."""
    source: Corpus
    """Its text."""

    def documents(self, split: Split, counts: RowCounts | None = None) -> Iterator[str]:
        """As those of the source."""
        with named(f"data.sources.{self.name}"):
            yield from self.source.documents(split, counts)


def trained_files(source: Corpus) -> dict[str, str]:
    """SHA-256 of each file that is trained on -> what is allowed where such a file would be held out.

    Raises:
        UserError: a file cannot be read.
    """
    texts = {f"data.sources.{name}": part for name, part in source.sources} if isinstance(source, Mixture) else {}
    found: dict[str, str] = {}
    for key, text in (texts or {"data": source}).items():
        with named(key):
            digests = list(text.training_digests()) if isinstance(text, TextFiles) else []
        found |= dict.fromkeys(digests, TRAINED_ELSEWHERE.format(f"{key}.files"))
    return found


@contextmanager
def named(key: str) -> Iterator[None]:
    """Raise the errors on ``data.files`` and its like as errors on the same key of ``key``."""
    try:
        yield
    except UserError as error:
        if not error.key.startswith("data.") or error.key.startswith(f"{key}."):
            raise
        raise UserError(f"{key}.{error.key.removeprefix('data.')}", error.value, error.allowed) from error
