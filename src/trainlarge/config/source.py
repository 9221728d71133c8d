"""The texts that ``data.sources`` mixes and those of ``data.evaluations``, each under a name that a user gives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trainlarge.config.group import Group
from trainlarge.config.identity import NOT_IDENTITY
from trainlarge.errors import UserError

LARGEST_WEIGHT = 1e9
STDLIB = "stdlib"


@dataclass(frozen=True)
class TextConfig(Group):
    """Where one text comes from. None of it is part of an id: a content hash stands for it."""

    name: Literal["text", "stdlib"] = field(default="text", metadata=NOT_IDENTITY)
    """``text`` (``files`` or ``hub``) or ``stdlib`` (source text of the running Python's standard library)."""
    files: tuple[str, ...] = field(default=(), metadata=NOT_IDENTITY)
    """Paths, folders or glob patterns, as in ``data.files``."""
    hub: str | None = field(default=None, metadata=NOT_IDENTITY)
    """Name of a Hugging Face data set instead of files, as in ``data.hub``."""
    text_column: str | None = field(default=None, metadata=NOT_IDENTITY)
    """Column that holds the text; null: ``data.text_column``."""
    encoding: str | None = field(default=None, metadata=NOT_IDENTITY)
    """Encoding of the files; null: ``data.encoding``."""
    separator: str | None = field(default=None, metadata=NOT_IDENTITY)
    """Character between fields of .csv and .tsv files; null: ``data.separator``."""

    def check_text(self, key: str) -> None:
        """Refuse a text that is nowhere, or at two places.

        Args:
            key: the full key of this group.

        Raises:
            UserError: naming the key.
        """
        if self.name == STDLIB:
            if self.files or self.hub:
                raise UserError(f"{key}.name", self.name, "text with files or hub")
        elif not self.files and not self.hub:
            raise UserError(f"{key}.files", list(self.files), "a list of files, folders or patterns; or set hub")
        elif self.files and self.hub:
            raise UserError(f"{key}.hub", self.hub, "null with files")


@dataclass(frozen=True)
class SourceConfig(TextConfig):
    """One of the texts that are mixed for training."""

    key: ClassVar[str] = "data.sources"

    validation_files: tuple[str, ...] = field(default=(), metadata=NOT_IDENTITY)
    """Files held out for validation; empty: a share of the text, as in ``data.validation_files``."""
    weight: float | None = None
    """Share of the training rows of an epoch that come from it, relative to the weights of the other sources; null in
    all: as many as it has, each once."""

    def check(self) -> None:
        is_weight = self.weight is None or 0 < self.weight <= LARGEST_WEIGHT
        self.require("weight", is_weight, f"a number above 0 and at most {LARGEST_WEIGHT:g}, or null")


@dataclass(frozen=True)
class EvaluationTextConfig(TextConfig):
    """A text to evaluate on: all of ``files``, or the part of ``hub`` or ``stdlib`` that is held out."""

    key: ClassVar[str] = "data.evaluations"
