"""Columns whose names a user gives: those of ``data.evaluations`` and ``data.sources``, where a study has any.

``<set>_loss``, ``<set>_accuracy``, ...: the task's metrics on an evaluation text; ``<set>_gap``: its loss minus that on
the validation text, above 0 as far as the model is worse there. ``<source>_tokens``, ``<source>_share``,
``<source>_epochs`` and ``<source>_weight``: training tokens in use, share of an epoch, passes over them, and weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from trainlarge.errors import UserError
from trainlarge.results.columns import LOSS_UNIT
from trainlarge.results.nested import Nested, as_array
from trainlarge.results.scores import ANY_TASK, all_scores

_OF_SOURCES = {
    "tokens": ("1", "training tokens in use of the source"),
    "share": ("1", "share of the training tokens of an epoch that are of the source"),
    "epochs": ("1", "passes over the training tokens in use of the source"),
}
_WEIGHT = ("1", "weight of the source; NaN where all sources count by their sizes:")


def text_columns(records: Nested) -> pd.DataFrame:
    """The columns of evaluation texts and sources of these records, one row each, NaN where a record has none."""
    columns: dict[str, object] = {}
    for name in _names(records.values("evaluations")):
        of_text = f"evaluations.{name}"
        for metric in all_scores():
            values = records.values(f"{of_text}.{metric}")
            if any(value is not None for value in values):
                columns[f"{name}_{metric}"] = as_array(values)
        gap = pd.to_numeric(pd.Series(records.values(f"{of_text}.loss")), errors="coerce")
        columns[f"{name}_gap"] = gap - pd.to_numeric(pd.Series(records.values("loss")), errors="coerce")
    for name in _names(records.values("data.sources")):
        for key in _OF_SOURCES:
            columns[f"{name}_{key}"] = as_array(records.values(f"data.sources.{name}.{key}"))
        columns[f"{name}_weight"] = as_array(records.values(f"config.data.sources.{name}.weight"))
    return pd.DataFrame(columns)


def meaning_of(column: str) -> tuple[str, str] | None:
    """Unit and meaning of a column of a text or a source; None for any other name."""
    name, _, key = column.rpartition("_")
    if key in _OF_SOURCES or key == "weight":
        unit, text = _OF_SOURCES.get(key, _WEIGHT)
        return unit, f"{text} {name}"
    if key == "gap":
        return LOSS_UNIT, f"{name}_loss - loss: above 0 as far as the model is worse on {name} than on validation"
    metric = ANY_TASK.get(key) or all_scores().get(key)
    return (metric.unit, f"{metric.meaning} on the text {name}") if metric else None


def source_names(cells: pd.DataFrame) -> list[str]:
    """The sources whose columns these cells have, as far as a cell has them."""
    names = [name.removesuffix("_share") for name in map(str, cells) if name.endswith("_share")]
    return [name for name in names if f"{name}_weight" in cells and cells[f"{name}_share"].notna().any()]


def evaluation_names(cells: pd.DataFrame) -> list[str]:
    """The evaluation texts whose columns these cells have, as far as a cell was evaluated on them."""
    names = [name.removesuffix("_gap") for name in map(str, cells) if name.endswith("_gap")]
    return [name for name in names if f"{name}_loss" in cells and cells[f"{name}_loss"].notna().any()]


def check_texts(records: Nested) -> None:
    """Refuse records in which one name stands for several evaluation texts.

    Raises:
        UserError: naming it.
    """
    for name in _names(records.values("evaluations")):
        prints = {value for value in records.values(f"evaluations.{name}.fingerprint") if value is not None}
        if len(prints) > 1:
            allowed = (
                f"one text in all cells of a study, and there are {len(prints)}: allow_mixed=True loads them anyway"
            )
            raise UserError(f"data.evaluations.{name}", "several texts", allowed)


def _names(column: Sequence[object]) -> list[str]:
    return list(dict.fromkeys(str(name) for value in column if isinstance(value, dict) for name in value))
