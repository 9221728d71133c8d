"""Text of a data set on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trainlarge.data.split import Split, split_of, validation_share
from trainlarge.data.table import BATCH_ROWS, column_text, quiet_datasets
from trainlarge.errors import UserError

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class HubText:
    """Training split of a Hub data set, one document a row; the hash of a document's text decides its split here.

    The download goes into the Hub's own cache, which other programs share.
    """

    name: str
    """Data set, as ``owner/name``."""
    configuration: str | None
    """Configuration of the data set, written behind a colon: ``owner/name:configuration``."""
    text_column: str
    """Column that holds the text."""
    validation_share: float
    """Expected share of the documents that validate, in (0, 1)."""

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> HubText:
        """Data set that ``data.hub`` names."""
        name, _, configuration = str(data["hub"]).partition(":")
        return cls(name, configuration or None, data.get("text_column") or "text", validation_share(data))

    def documents(self, split: Split) -> Iterator[str]:
        """Documents of the split, none of them blank.

        Raises:
            UserError: the Hub cannot be reached, or the data set has no such text column.
        """
        for text in column_text(self._rows(), self.text_column):
            if split_of(text, self.validation_share) == split:
                yield text

    def contents(self) -> dict[str, Any]:
        """Settings and the commit of the data set, which stands for its content.

        Raises:
            UserError: the Hub cannot be reached or does not know the data set.
        """
        settings = {"name": self.name, "configuration": self.configuration, "column": self.text_column}
        commit = hub_commit(self.name)
        return {"corpus": "hub", "commit": commit, "validation_share": self.validation_share, **settings}

    def stamp(self) -> Hashable:
        """Constant: the commit is asked for once per process."""
        return None

    def _rows(self) -> Iterator[dict[str, list[Any]]]:
        load = quiet_datasets().load_dataset
        try:
            rows = load(self.name, self.configuration, split="train", revision=hub_commit(self.name))
        except Exception as error:  # each layer of the download has its own error classes
            raise _unreachable(self.name, error) from error
        return rows.iter(BATCH_ROWS)


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


def _unreachable(name: str, error: Exception) -> UserError:
    reason = f"{type(error).__name__}: {error}"[:200]
    return UserError("data.hub", name, f"a data set on the Hugging Face Hub, with a network to reach it ({reason})")
