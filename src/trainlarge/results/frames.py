"""The study folder as pandas frames."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from trainlarge.config.budget import parse_budget
from trainlarge.config.group import Plain
from trainlarge.errors import UserError
from trainlarge.results.columns import CELLS, COMPRESSION, CURVES, PARENT, Column
from trainlarge.results.comparable import check_comparable, missed
from trainlarge.results.document_losses import DocumentLosses
from trainlarge.results.model_folders import EVALUATED_ON, folder_names
from trainlarge.results.nested import Columns, Nested, Values, as_array, columns_of
from trainlarge.results.parents import chosen, join_parents, name_by_parents, with_ancestors
from trainlarge.results.parts import part_names
from trainlarge.results.recipes import told_apart
from trainlarge.results.series import name_series
from trainlarge.results.text_columns import check_texts, text_columns
from trainlarge.results.texts import text_frame
from trainlarge.results.training_cost import training_cost
from trainlarge.results.weight_changes import WeightChanges
from trainlarge.sweep.collection import collection_paused
from trainlarge.sweep.secrets import text_without_secrets
from trainlarge.sweep.step_times import budgets_missed
from trainlarge.sweep.store import CellFolder, Study

_TYPES = {"text": "object", "yes or no": "bool"}
"""Unit of a column -> its type in a frame without rows."""
Row = dict[str, Plain]
"""A record, or a row of a curve."""


@dataclass(frozen=True)
class StudyFrames:
    """A study as tidy frames; ``trainlarge.results.columns.COLUMNS`` gives unit and meaning of every column."""

    cells: pd.DataFrame
    """One row per train cell that is done; none in a study of Hugging Face folders alone."""
    curves: pd.DataFrame
    """One row per metrics row of those cells; of a curve file above 4 MB exact rows of it, at most 5,000."""
    compression: pd.DataFrame
    """One row per compress cell that is done; empty, with all columns, where nothing was compressed. Those of Hugging
    Face folders have the name of the folder as ``checkpoint``, and no columns of training."""
    documents: DocumentLosses = DocumentLosses()
    """Losses per document of the cells, read where a comparison needs them."""
    weights: WeightChanges = field(default_factory=WeightChanges)
    """How far compression and finetuning moved the weights, read where a figure needs it."""
    texts: pd.DataFrame = field(default_factory=lambda: text_frame([]))
    """What was read and written of each text: columns as in ``trainlarge.results.texts``; without rows where the cells
    are from before that was kept."""

    def tables(self) -> dict[str, pd.DataFrame]:
        """Name -> frame."""
        return {"cells": self.cells, "curves": self.curves, "compression": self.compression}

    def with_budgets_in_words(self) -> StudyFrames:
        """With budgets as people read them: ``150 GFLOPs`` for ``150000000000 FLOPs``."""
        words = {text: parse_budget(text).in_words for frame in self.tables().values() for text in _budgets(frame)}
        cells, curves, compression = (
            frame.assign(budget=frame["budget"].map(words)) for frame in self.tables().values()
        )
        return replace(self, cells=cells, curves=curves, compression=compression)

    def with_losses(self) -> StudyFrames:
        """Without the cells that diverged, which have clocks and counts but no loss.

        And without what was compressed of cells whose budget was missed: it is grouped by budgets.
        """
        cells = self.cells[self.cells["loss"].notna()].reset_index(drop=True)
        curves = self.curves[self.curves["cell"].isin(cells["cell"])].reset_index(drop=True)
        short = self.cells.loc[missed(self.cells), "cell"]
        compression = self.compression[~self.compression["parent"].isin(short)].reset_index(drop=True)
        return replace(self, cells=cells, curves=curves, compression=compression)


def _budgets(frame: pd.DataFrame) -> Iterable[str]:
    return frame["budget"].dropna().unique()


def load_study(study: str | Path | Study, strict: bool = True, allow_mixed: bool = False) -> StudyFrames:
    """Read the results of a study.

    Args:
        study: its name, or its folder such as ``studies/quickstart``. Where ``$TRAINLARGE_STUDIES`` does not say where
            studies are, they are looked for from the working directory upwards, as from a notebook in ``analysis/``.
        strict: refuse a damaged record or curve; otherwise warn and leave the cell out.
        allow_mixed: load cells together even though their losses cannot be compared.

    Raises:
        UserError: when there is no such study, nothing in it is done, a file is damaged, or cells were evaluated on
            different data.
    """
    found = find_study(study)
    with collection_paused():
        try:
            return _load(found, strict, allow_mixed)
        except UserError:
            raise
        # Records are proven by their seals; only where that was not enough, the types of all values are looked at.
        except (TypeError, ValueError, LookupError, AttributeError):
            return _load(found, strict, allow_mixed, with_types=True)


def _load(study: Study, strict: bool, allow_mixed: bool, with_types: bool = False) -> StudyFrames:
    train, compressed = (_results(study, stage, strict, with_types) for stage in ("train", "compress"))
    records = [result.record for result in compressed]
    if not train and not any(folder_names(Nested(records))):
        raise UserError(
            "study",
            study.path,
            "a study with at least one finished train cell, or compress cell of a Hugging Face folder",
        )
    cells = _cells([result.record for result in train])
    # What was observed after the record was written counts too.
    later = cells["cell"].map(budgets_missed(study)).fillna(1.0)
    cells["budget_missed"] = cells["budget_missed"].astype(float).clip(lower=later)
    if not allow_mixed:
        with_texts = {str(result.record["cell"]): result.record for result in train if "evaluations" in result.record}
        for _, part in cells.groupby("part", sort=False):
            check_comparable(part)
            check_texts(Nested([with_texts[cell] for cell in part["cell"] if cell in with_texts]))
    return StudyFrames(
        cells,
        _curves(train, cells),
        _compression(records, cells),
        DocumentLosses(study),
        WeightChanges(study),
        text_frame(result.record for result in train),
    )


def find_study(study: str | Path | Study) -> Study:
    """The study of that name or folder, looked for from the working directory upwards.

    Raises:
        UserError: when it does not exist.
    """
    if isinstance(study, Study):
        return study
    places = (Path.cwd(), *Path.cwd().parents)
    if isinstance(study, str) and "/" not in study:
        folders = [Study.named(study).path, *(place / "studies" / study for place in places)]
    else:
        folders = []
    folders += [place / study for place in places]
    existing = next((folder for folder in folders if folder.is_dir()), None)
    if existing is None:
        raise UserError("study", study, "the name or the folder of a study")
    return Study(existing.resolve())


class _Result(NamedTuple):
    """What a done cell has."""

    record: Row
    """Its one row."""
    curve: list[Row]
    """Rows of its curve; a compress cell has none."""


def _results(study: Study, stage: str, strict: bool, with_types: bool) -> list[_Result]:
    results = (_result(folder, strict, with_types) for folder in study.folders(stage) if folder.says_done())
    return [result for result in results if result]


def _result(folder: CellFolder, strict: bool, with_types: bool) -> _Result | None:
    try:
        record = folder.record_data(with_types)
        return _Result(record, folder.thinned_metrics(record) if folder.stage == "train" else [])
    except UserError as error:
        if strict:
            raise
        warnings.warn(f"cell {folder.id} is left out: {error}", stacklevel=4)
        return None


def _cells(records: list[Row]) -> pd.DataFrame:
    if not records:
        return pd.DataFrame({name: pd.Series(dtype=_TYPES.get(each.unit, "float64")) for name, each in CELLS.items()})
    nested = Nested(records)
    frame = _frame(nested, CELLS)
    ids = [str(checkpoint or "") for checkpoint in nested.values("config.checkpoint")]
    checkpoints = [folder or cell for folder, cell in zip(folder_names(nested), ids, strict=True)]
    frame["checkpoint"], frame["part"] = checkpoints, part_names(nested, checkpoints)
    frame["chosen"] = chosen(nested)
    frame[["shape", "variant", "series"]] = _names(frame, nested.values("config"))
    parsed = {text: parse_budget(text) for text in frame["budget"].unique()}
    budgets = [parsed[text] for text in frame["budget"]]
    frame["budget_value"] = [budget.value for budget in budgets]
    frame["budget_unit"] = [budget.unit for budget in budgets]
    # Records of before the key existed do not know.
    frame["mixed"] = [bool(before) for before in nested.values("environment.before")]
    frame["disturbance"] = frame["train_seconds"] / frame["model_seconds"]
    frame["train_validation_gap"] = frame["train_set_loss"] - frame["loss"]
    frame["total_flops"], frame["total_seconds"] = (with_ancestors(frame, name) for name in ("flops", "train_seconds"))
    frame = join_parents(frame.join(text_columns(nested)))
    return frame.sort_values(["parameters", "series", "seed", "step", "cell"], ignore_index=True)


def _names(frame: pd.DataFrame, configs: list[object]) -> pd.DataFrame:
    """Names of shapes, variants and series, which tell apart the cells of each part."""
    names = []
    for _, rows in frame.groupby("part", sort=False):
        is_started = bool(rows["checkpoint"].iloc[0])
        names.append(name_series([configs[place] for place in rows.index], is_started).set_axis(rows.index))
    named = pd.concat(names).reindex(frame.index)
    return name_by_parents(frame.assign(**named)) if frame["checkpoint"].any() else named


def _curves(train: Iterable[_Result], cells: pd.DataFrame) -> pd.DataFrame:
    by_id = {str(result.record["cell"]): result.curve for result in train}
    curves = [by_id[cell] for cell in cells["cell"]]
    rows = [row for curve in curves for row in curve]
    columns: Columns = columns_of(rows)
    nothing: list[object] = [None] * len(rows)
    owners = np.repeat(np.arange(len(curves)), [len(curve) for curve in curves])
    of_the_cell = ("cell", "shape", "variant", "series", "seed", "budget")
    taken = {name: cells[name].array.take(owners) for name in of_the_cell}
    measured = {name: as_array(columns.get(name, nothing)) for name in CURVES if name not in taken}
    return _with_float_flops(pd.DataFrame(taken | measured, columns=list(CURVES)))


def _compression(records: list[Row], cells: pd.DataFrame) -> pd.DataFrame:
    nested = Nested(records)
    frame = _frame(nested, COMPRESSION)
    frame["recipe"] = told_apart(frame["recipe"], nested.values("recipe"))
    taken = [*PARENT, "seed"]
    frame[taken] = cells.set_index("cell")[taken].reindex(frame["parent"]).set_axis(frame.index)
    frame["checkpoint"] = folder_names(nested)
    is_folder = frame["checkpoint"].ne("")
    if is_folder.any():
        for name in PARENT:
            # A folder has its own tokenizer, whose size is not configured.
            if CELLS[name].source.startswith(EVALUATED_ON) and name != "vocab_size":
                own = pd.Series(_values(CELLS[name], nested), index=frame.index)
                frame[name] = own.where(is_folder, frame[name])
    ancestors = cells.set_index("cell").reindex(frame["parent"]).set_axis(frame.index)
    for total, clock in (("total_flops", "flops"), ("total_seconds", "train_seconds")):
        frame[total] = training_cost(frame, clock) + (ancestors[total] - ancestors[clock]).astype(float).fillna(0.0)
    frame = frame.join(text_columns(nested))
    return frame.sort_values(["parameters", "parent", "recipe", "cell"], ignore_index=True)


def _frame(records: Nested, table: dict[str, Column]) -> pd.DataFrame:
    """The columns of ``table`` that are in the records; those that are computed are empty."""
    frame = pd.DataFrame({name: _values(column, records) for name, column in table.items()}, columns=list(table))
    frame["software"] = [
        ", ".join(f"{name} {version}" for name, version in software.items()) if isinstance(software, dict) else ""
        for software in records.values("environment.software")
    ]
    # Versions before left secrets in records. Few cells have a command of their own.
    shown = {
        command: text_without_secrets(command) for command in frame["command"].unique() if isinstance(command, str)
    }
    frame["command"] = frame["command"].map(shown)
    return _with_float_flops(frame)


def _with_float_flops(frame: pd.DataFrame) -> pd.DataFrame:
    """FLOPs of a large run exceed 64-bit whole numbers."""
    for name in ("flops", "executed_flops"):
        if name in frame:
            frame[name] = frame[name].astype(float)
    return frame


def _values(column: Column, records: Nested) -> Values:
    values = records.values(column.source)
    if column.missing is not None:
        values = [column.missing if value is None else value for value in values]
    return as_array(values)
