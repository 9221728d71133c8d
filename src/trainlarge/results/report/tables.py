"""The tables of the report, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from trainlarge.config.metric import Metric
from trainlarge.results.analysis.contenders import TRAINING_AXES
from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.frontier import frontier
from trainlarge.results.analysis.intervals import Difference, SeedMean, difference, number
from trainlarge.results.analysis.loss_increases import Increases
from trainlarge.results.comparable import missed, on_axis, timed
from trainlarge.results.frames import StudyFrames
from trainlarge.results.recipes import same_task
from trainlarge.results.report.finding import listed
from trainlarge.results.scores import loss_of, other_scores, score_text
from trainlarge.results.series import by_size
from trainlarge.results.units import SCALES

_FACTS = (
    *("device_name", "precision", "threads", "attention", "forward", "compile", "strategy"),
    *("data", "data_fingerprint", "evaluation_fingerprint", "vocab_size", "sequence_length", "schedule"),
    *("host", "commit", "software"),
)
"""Columns of the cells that say where the numbers come from."""
NOT_KNOWN = "not known"
"""A fact that no record holds."""
MOST_ROWS = 200
"""Rows of a table; the files beside the page have all."""
MOST_VALUES = 8
"""Values of one fact that are shown."""
Row = Mapping[Hashable, Any]
"""A row of a frame: column -> value, of the type that pandas gives it."""


@dataclass(frozen=True)
class Table:
    """A table of the report, all cells text."""

    title: str
    """Heading above it."""
    note: str
    """How to read it."""
    header: list[str]
    """Names of the columns, with units."""
    rows: list[list[str]]
    """Text of the rows."""


def tables(frames: StudyFrames, evidence: Evidence) -> list[Table]:
    """The tables of a study, those of compression only where there is some; no table has more than ``MOST_ROWS``."""
    made = [_best_per_budget(evidence)]
    if frames.compression["series"].notna().any():
        made.append(_compression_frontier(frames.compression))
        made += [_increases(answer, evidence.loss.unit) for answer in evidence.increases if not answer.why_not]
    return [*made, _all_cells(frames.cells)]


def _best_per_budget(evidence: Evidence) -> Table:
    """Series ranked at each budget, where it was not missed; losses are means over seeds."""
    cells = evidence.whole.cells
    cells = cells[~missed(cells)]
    unit, others = evidence.loss.short_unit, other_scores(cells)
    keys = ["budget_unit", "budget_value", "budget", "series"]
    means = cells.groupby(keys)[["loss", *others]].mean().reset_index()
    rows = []
    for (_, _, budget), group in means.groupby(["budget_unit", "budget_value", "budget"]):
        ranked = group.sort_values(["loss", "series"]).to_dict("records")
        first, behind = ranked[0], ranked[1:]
        second = ["–", "–"]
        if behind:
            gap = _gap(evidence, str(budget), behind[0]["series"], first["series"])
            second = [behind[0]["series"], f"{number(gap.value, gap.precision)} ({gap.interval()})"]
        rows.append([budget, first["series"], f"{first['loss']:.3f}", *_texts(others, first), *second])
    rows, left_out = few_rows(rows)
    note = "Lowest loss at each budget. No correction for the number of rows: no order is called clear here." + left_out
    header = ["budget", "best", f"loss ({unit})", *others, "second", f"behind by ({unit})"]
    return Table("Best size at each budget", note, header, rows)


def _texts(others: Mapping[str, Metric], row: Row) -> list[str]:
    return [score_text(metric, row[name]) for name, metric in others.items()]


def _gap(evidence: Evidence, budget: str, left: str, right: str) -> Difference:
    """``left - right`` after a budget; without an interval where one of them is not compared."""
    whole, sample = evidence.whole.cells, evidence.trained
    cells = whole[whole["budget"] == budget]
    sides = []
    for name in (left, right):
        rows = cells[cells["series"] == name]
        draws = sample.draws("loss", [[(cell, 1 / len(rows)) for cell in rows["cell"]]])
        sides.append(SeedMean(tuple(rows["loss"]), None if draws is None else draws[0]))
    return difference(sides[0], sides[1], sample)


def _increases(answer: Increases, unit: str) -> Table:
    """What each family of recipes costs each size."""
    rows = [
        [family, *(f"{medians[size].value:+.3f}" for size in answer.sizes)]
        for family, medians in answer.families.items()
    ]
    note = f"Median over the recipes of a family, mean over seeds, in {unit}."
    return Table(f"Loss increase at equal {answer.equal} ({answer.where})", note, ["recipes", *answer.sizes], rows)


def scored_tables(frames: StudyFrames, y: str) -> list[Table]:
    """The tables of models whose task is judged by the score ``y``."""
    has_some = frames.compression["series"].notna().any()
    return [*([_compression_frontier(frames.compression, y)] if has_some else []), _all_cells(frames.cells)]


def _compression_frontier(compression: pd.DataFrame, y: str = "loss") -> Table:
    best = frontier(same_task(compression).dropna(subset=["series"]), "file_bytes", y)
    unit, others = loss_of(compression).short_unit, other_scores(compression)
    write = SCALES["file_bytes"].write
    rows = [
        [
            write(row["file_bytes"]),
            row["series"],
            _trained_for(row),
            row["recipe"],
            f"{row['loss']:.3f}",
            f"{row['loss_increase']:+.3f}",
            *_texts(others, row),
        ]
        for row in best.to_dict("records")
    ]
    rows, left_out = few_rows(rows)
    header = ["file size", "model", "trained for", "recipe", f"loss ({unit})", f"increase ({unit})", *others]
    return Table("Frontier of compression", f"Nothing else is both smaller and better.{left_out}", header, rows)


def _trained_for(row: Row) -> str:
    """The budget of the checkpoint, and the steps of recovery."""
    recovery = f" + {SCALES['step'].write(row['recover_steps'])}" if row["recover_steps"] else ""
    return f"{row['budget']}{recovery}"


def _all_cells(cells: pd.DataFrame) -> Table:
    has_times, others = set(timed(cells)["cell"]), other_scores(cells)
    rows = []
    for row in _shown(cells).to_dict("records"):
        sizes = [f"{row['parameters']:,}", f"{row['step']:,}", SCALES["flops"].write(row["flops"])]
        times = [SCALES[name].write(row[name]) for name in ("model_seconds", "train_seconds")]
        times = times if row["cell"] in has_times else ["–", "–"]
        scores = [f"{row['loss']:.3f}", *_texts(others, row)]
        rows.append([row["series"], str(row["seed"]), row["budget"], *sizes, *times, *scores, row["cell"]])
    loss = f"loss ({loss_of(cells).short_unit})"
    header = ["size", "seed", "budget", "parameters", "steps", "FLOPs", "modelled time", "measured time"]
    left_out = f" The {MOST_ROWS} on a frontier or of best rank at their budget; all {len(cells):,} are in cells.csv."
    note = "One row per train cell; trainlarge show says more of a cell." + (left_out if len(cells) > MOST_ROWS else "")
    return Table(
        "All checkpoints" if len(cells) <= MOST_ROWS else "Best checkpoints",
        note,
        [*header, loss, *others, "cell"],
        rows,
    )


def _shown(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells of the frontiers and those of best rank at their budgets, in the order of the frame."""
    ranks = cells.groupby(["budget_unit", "budget_value"])["loss"].rank(method="first")
    for x in TRAINING_AXES:
        ranks[frontier(on_axis(cells, x), x).index] = 0
    return cells.loc[sorted(ranks.sort_values(kind="stable").index[:MOST_ROWS])]


def few_rows(rows: list[list[str]]) -> tuple[list[list[str]], str]:
    """At most ``MOST_ROWS`` rows, evenly taken with both ends, and what a note says of the others."""
    if len(rows) <= MOST_ROWS:
        return rows, ""
    places = np.linspace(0, len(rows) - 1, MOST_ROWS).round().astype(int)
    return [rows[place] for place in places], f" {MOST_ROWS} of {len(rows):,} rows, evenly taken."


def facts(frames: StudyFrames) -> list[tuple[str, str]]:
    """Where the numbers come from, as name and value."""
    if frames.cells.empty:
        known = {name: text for name in _FACTS if (text := _distinct(frames.compression[name])) != NOT_KNOWN}
        return [(name.replace("_", " "), text) for name, text in known.items()]
    cells = frames.cells
    ratio = timed(cells)["disturbance"]
    disturbance = f"{ratio.median():.2f} (from {ratio.min():.2f} to {ratio.max():.2f}); 1 on a quiet machine"
    return [
        *((name.replace("_", " "), _distinct(cells[name])) for name in _FACTS),
        ("device was shared", _distinct(cells["shared"])),
        ("jobs on a device at once", _distinct(cells["per_device"])),
        ("resumed in another way", _distinct(cells["mixed"])),
        ("measured over modelled training time", NOT_KNOWN if ratio.empty else disturbance),
        ("sizes", listed(by_size(cells))),
    ]


def _distinct(column: pd.Series) -> str:
    names = {"True": "yes", "False": "no", "nan": NOT_KNOWN, "None": NOT_KNOWN}
    values = [names.get(value, value) for value in sorted({str(value) for value in column})]
    more = [f"{len(values) - MOST_VALUES:,} more"] if len(values) > MOST_VALUES else []
    return " · ".join([*values[:MOST_VALUES], *more])
