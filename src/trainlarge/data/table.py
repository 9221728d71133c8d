"""Text out of rows, and the `datasets` library without its noise."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from trainlarge.errors import UserError

BATCH_ROWS = 1_000


def quiet_datasets() -> ModuleType:
    """The `datasets` library, imported on first use, with its progress bars and its log lines off."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL + 1)
    return datasets


def column_text(batches: Iterable[dict[str, list[Any]]], text_column: str) -> Iterator[str]:
    """Entries of the text column, without the empty and blank ones.

    Args:
        batches: columns by name, each a list with one entry a row.
        text_column: name of the column to take.

    Raises:
        UserError: there is no such column, or it holds something other than text.
    """
    for batch in batches:
        if text_column not in batch:
            raise UserError("data.text_column", text_column, "one of the columns " + ", ".join(map(str, batch)))
        for entry in batch[text_column]:
            if not isinstance(entry, str | None):
                raise UserError("data.text_column", text_column, f"a column of text, not of {type(entry).__name__}")
            if entry and not entry.isspace():
                yield entry
