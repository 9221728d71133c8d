"""Text of a data set on the Hugging Face Hub."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import ClassVar, cast

from trainlarge.config.data import GROUPED, DataConfig, Split, SplitRule
from trainlarge.config.group import Plain
from trainlarge.data.rows import RowCounts, texts
from trainlarge.data.split import normalized, split_of
from trainlarge.errors import UserError

TIMEOUT_SECONDS = 10.0
BATCH_ROWS = 1_000
_READS = frozenset({"hub", "text_column", "validation_share", "split", "streaming"})


@dataclass(frozen=True)
class HubText:
    """Training split of a Hub data set, one document per row; the hash of a document's text decides its split here.

    The download goes into the Hub's own cache, which other programs share, and is mapped from there into memory; with
    ``streaming`` nothing is kept.
    """

    VERSION: ClassVar[int] = 1
    """Raised when the same data set would give other documents."""

    name: str
    """Data set, as ``owner/name``."""
    configuration: str | None
    """Configuration of the data set, written behind a colon: ``owner/name:configuration``."""
    text_column: str
    """Column that holds the text."""
    validation_share: float
    """Expected share of the documents that validate, in (0, 1)."""
    rule: SplitRule
    """The rule that divides it."""
    streaming: bool = False
    """Whether it is read over the network each time that it is gone through."""

    @classmethod
    def from_data(cls, data: DataConfig) -> HubText:
        """Data set that ``data.hub`` names."""
        if data.files:
            raise UserError("data.hub", data.hub, "null with data.files")
        name, _, configuration = str(data.hub).partition(":")
        column = data.text_column or "text"
        return cls(name, configuration or None, column, data.validation_share, data.rule, data.streaming)

    def documents(self, split: Split, counts: RowCounts | None = None) -> Iterator[str]:
        """Documents of the split, none of them blank.

        Args:
            counts: takes up what is read on the way.

        Raises:
            UserError: the Hub cannot be reached, or the data set has no such text column.
        """
        key = normalized if self.rule == GROUPED else str
        for text in texts(self._entries(), counts or RowCounts()):
            if split_of(key(text), self.validation_share) == split:
                yield text

    def contents(self) -> dict[str, Plain]:
        """Settings and the commit of the data set, which stands for its content.

        Raises:
            UserError: the Hub cannot be reached or does not know the data set.
        """
        settings: dict[str, Plain] = {
            "name": self.name,
            "configuration": self.configuration,
            "column": self.text_column,
        }
        rule: dict[str, Plain] = {"split": self.rule} if self.rule == GROUPED else {}
        commit = hub_commit(self.name)
        return {"corpus": "hub", "commit": commit, "validation_share": self.validation_share, **settings, **rule}

    def stamp(self) -> Hashable:
        """Constant: the commit is asked for once per process."""
        return None

    def needs(self, key: str) -> str | None:
        """What would make this corpus read ``data.<key>``; None where it does."""
        return None if key in _READS else "data.files takes the place of data.hub"

    def _entries(self) -> Iterator[str | None]:
        """Entries of the text column."""
        for batch in self._batches():
            if self.text_column not in batch:
                allowed = f"one of the columns {', '.join(map(str, batch))}"
                raise UserError("data.text_column", self.text_column, allowed)
            for entry in batch[self.text_column]:
                if not isinstance(entry, str | None):
                    allowed = f"a column of text, not of {type(entry).__name__}"
                    raise UserError("data.text_column", self.text_column, allowed)
                yield entry

    def _batches(self) -> Iterator[Mapping[str, Sequence[object]]]:
        load = _quiet_datasets().load_dataset
        mode = {"streaming": True} if self.streaming else {}
        try:
            rows = load(self.name, self.configuration, split="train", revision=hub_commit(self.name), **mode)
        except Exception as error:  # each layer of the download has its own error classes
            raise _unreachable(self.name, error) from error
        batches: Iterator[Mapping[str, Sequence[object]]] = rows.iter(BATCH_ROWS)
        return batches


@lru_cache
def hub_commit(name: str) -> str:
    """Commit that a data set stands at now, asked once per process.

    Raises:
        UserError: the Hub cannot be reached or does not know the data set.
    """
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(name, timeout=TIMEOUT_SECONDS).sha
    except Exception as error:  # the HTTP client below has its own error classes
        raise _unreachable(name, error) from error
    return str(commit)


def _quiet_datasets() -> ModuleType:
    """The `datasets` library, imported on first use, with its progress bars and its log lines off."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL + 1)
    return cast(ModuleType, datasets)


def _unreachable(name: str, error: Exception) -> UserError:
    reason = f"{type(error).__name__}: {error}"[:200]
    return UserError("data.hub", name, f"a data set on the Hugging Face Hub, with a network to reach it ({reason})")
