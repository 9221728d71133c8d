"""The tables of the report about data: what was read of each text, and how models do on other texts."""

from __future__ import annotations

import math

import pandas as pd

from trainlarge.config.task import LabelledConfig
from trainlarge.results.report.tables import Table, few_rows
from trainlarge.results.scores import loss_of, task_of
from trainlarge.results.series import by_size
from trainlarge.results.text_columns import evaluation_names, source_names
from trainlarge.results.texts import COLUMNS
from trainlarge.results.units import significant

NOTHING = "–"
"""What is not known, or of which there is nothing."""
_COUNTS = {
    "blank rows": "blank_rows",
    "replaced rows": "replaced_rows",
    "repeated": "repeated_documents",
    "in training": "trained_documents",
    "very long": "long_documents",
}
"""Name of a column of the table -> column of the frame of texts."""
_NOTE = (
    "Blank rows lack a text or a label and are left out; all others are kept. Replaced rows hold bytes that are no "
    "text; repeated documents are the same as one before them; very long ones have a million characters or more. Rows "
    "with a label count as documents."
)


def text_tables(cells: pd.DataFrame, texts: pd.DataFrame) -> list[Table]:
    """The tables about the data of these train cells.

    Args:
        cells: of one part of a study, with their own clocks.
        texts: the frame of texts of the study.
    """
    own = texts[texts["data_fingerprint"].isin(cells["data_fingerprint"])]
    rows = _text_rows(cells, own)
    names = list(dict.fromkeys(name for row in rows for name in row if any(other.get(name) for other in rows)))
    lines, left_out = few_rows([[row.get(name) or NOTHING for name in names] for row in rows])
    made = [Table("Texts", _NOTE + left_out, names, lines)]
    others = evaluation_names(cells)
    return [*made, _losses_on(others, cells)] if others else made


def _text_rows(cells: pd.DataFrame, texts: pd.DataFrame) -> list[dict[str, str]]:
    """Rows of the table, as column -> text; empty where nothing is known."""
    sources = source_names(cells)
    if texts.empty:
        # Records from before texts were counted say how much of each was used, and nothing else.
        known = [{"text": name, "use": "train"} for name in ("", *sources)]
        texts = pd.DataFrame(known, columns=list(COLUMNS))
    task = task_of(cells)
    is_packed = not (task and issubclass(task, LabelledConfig))
    whole = "all" if sources else "the text"
    rows = []
    for row in texts.to_dict("records"):
        used = _use(cells, str(row["text"]), is_packed) if row["use"] == "train" else {}
        read = {"documents": _count(row["documents"]), "tokens": _count(row["tokens"])}
        counts = {name: _count(row[column]) for name, column in _COUNTS.items()}
        rows.append({"text": row["text"] or whole, "use": row["use"], **read, **used, **counts})
    return rows


def _use(cells: pd.DataFrame, name: str, is_packed: bool) -> dict[str, str]:
    """How a text was trained on: the range over the cells.

    Args:
        cells: that were trained.
        name: of a source; empty for the whole.
        is_packed: whether rows are full of tokens. Of others it is not known how many were seen.
    """
    if name and f"{name}_epochs" not in cells:
        return {}
    unique, epochs = (
        cells[column].astype(float)
        for column in ((f"{name}_tokens", f"{name}_epochs") if name else ("train_tokens", "epochs"))
    )
    used = {"tokens in use": _range(unique), "tokens seen": _range(unique * epochs)} if is_packed else {}
    used["epochs"] = _range(epochs, digits=3)
    if name:
        used["share"] = _range(100 * cells[f"{name}_share"].astype(float), digits=3, unit=" %")
        used["weight"] = _range(cells[f"{name}_weight"].astype(float), digits=3) or "its size"
    return used


def _losses_on(names: list[str], cells: pd.DataFrame) -> Table:
    """Losses on evaluation texts after each budget; means over seeds."""
    columns = ["loss", *(f"{name}_{end}" for name in names for end in ("loss", "gap"))]
    rows = []
    for series in by_size(cells):
        of_series = cells[cells["series"] == series]
        for _, group in of_series.groupby(["budget_unit", "budget_value"]):
            means = group[columns].astype(float).mean()
            written = [_loss(means[column], is_gap=column.endswith("_gap")) for column in columns]
            rows.append([series, str(group["budget"].iloc[0]), *written])
    lines, left_out = few_rows(rows)
    header = ["size", "budget", f"loss ({loss_of(cells).short_unit})"]
    header += [f"{name} {end}" for name in names for end in ("loss", "gap")]
    note = f"Means over seeds. A gap is the loss on a text minus that on the validation text.{left_out}"
    return Table("Losses on other texts", note, header, lines)


def _loss(value: float, is_gap: bool) -> str:
    if pd.isna(value):
        return NOTHING
    return f"{value:+.3f}" if is_gap else f"{value:.3f}"


def _count(value: float | None) -> str:
    """A count as text; empty where it is not known."""
    return "" if value is None or math.isnan(value) else f"{int(value):,}"


def _range(values: pd.Series, digits: int | None = None, unit: str = "") -> str:
    """The lowest and the highest value; empty where none is known."""
    known = values.dropna()
    if known.empty:
        return ""
    ends = [significant(end, digits) if digits else f"{round(end):,}" for end in (known.min(), known.max())]
    return " to ".join(dict.fromkeys(ends)) + unit
