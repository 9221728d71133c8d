"""What was read and written of each text of a study, as a frame; records of train cells hold the rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

import pandas as pd

from trainlarge.config.group import Plain
from trainlarge.sweep.recorded import meanings
from trainlarge.sweep.records import TextRow

COLUMNS = ("data_fingerprint", *meanings(TextRow))
"""Columns of the frame; ``TextRow`` gives unit and meaning."""
_TOKENS_DEPEND_ON = (("data", "evaluations_fingerprint"), ("data", "vocab_size"), ("checkpoint",))
"""Keys of the configuration that, beside the text, decide what its rows say."""


def text_frame(records: Iterable[Mapping[str, Plain]]) -> pd.DataFrame:
    """The rows of all texts of these records of train cells, each once.

    Returns:
        Columns ``COLUMNS``; no rows where all records are from before they were kept.
    """
    held: dict[Hashable, tuple[Plain, list[Plain]]] = {}
    for record in records:
        data, config = record.get("data"), record.get("config")
        if isinstance(data, dict) and isinstance(rows := data.get("texts"), list):
            fingerprint = data.get("fingerprint")
            held.setdefault((str(fingerprint), *_decisive(config)), (fingerprint, rows))
    made = [
        {"data_fingerprint": fingerprint, **row}
        for fingerprint, rows in held.values()
        for row in rows
        if isinstance(row, dict)
    ]
    return pd.DataFrame(made, columns=list(COLUMNS)).drop_duplicates(ignore_index=True)


def _decisive(config: Plain) -> Iterable[Hashable]:
    for path in _TOKENS_DEPEND_ON:
        value = config
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        yield str(value)
