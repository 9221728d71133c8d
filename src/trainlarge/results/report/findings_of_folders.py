"""What compression costs the models of Hugging Face folders, each against itself: sentences and a table.

Models of different folders have tokenizers of their own, so their losses are not compared.
"""

from __future__ import annotations

import pandas as pd

from trainlarge.results.analysis.intervals import number
from trainlarge.results.model_folders import of_folders
from trainlarge.results.report.finding import Finding, counted
from trainlarge.results.report.findings_of_compression import SAME_SIZE
from trainlarge.results.report.tables import Row, Table, few_rows
from trainlarge.results.scores import loss_of, other_scores, score_text
from trainlarge.results.units import SCALES


def folder_findings(compression: pd.DataFrame) -> list[Finding]:
    """One sentence per folder: the smallest file that costs next to nothing, or what costs least."""
    groups = of_folders(compression).groupby("checkpoint", sort=True)
    return [_smallest(str(name), rows) for name, rows in groups]


def folder_table(compression: pd.DataFrame) -> Table:
    """One row per compress cell of a folder, the smallest file of each folder first."""
    rows = of_folders(compression).sort_values(["checkpoint", "file_bytes", "cell"])
    loss, others, write = loss_of(rows), other_scores(rows), SCALES["file_bytes"].write
    lines = [
        [row["checkpoint"], write(row["file_bytes"]), _ratio(row), row["recipe"], f"{row['loss']:.3f}", _cost(row)]
        + [score_text(metric, row[name]) for name, metric in others.items()]
        + [row["cell"]]
        for row in rows.to_dict("records")
    ]
    unit = loss.short_unit
    header = ["folder", "file size", "times fewer bytes", "recipe", f"loss ({unit})", f"increase ({unit})", *others]
    note = "Bytes against the parameters of the checkpoint in its own data types; ± is a standard error over documents."
    lines, left_out = few_rows(lines)
    return Table("Models of Hugging Face folders", note + left_out, [*header, "cell"], lines)


def _smallest(name: str, rows: pd.DataFrame) -> Finding:
    loss, recipes = loss_of(rows), counted(len(rows), "recipe", "recipes")
    errors, limit = rows["increase_document_standard_error"].fillna(0).astype(float), loss.amount(loss.negligible)
    tied = rows[rows["loss_increase"] + 2 * errors < loss.negligible]
    if tied.empty:
        row = rows.sort_values(["loss_increase", "file_bytes"]).to_dict("records")[0]
        text = f"{name}: each of {recipes} may cost {limit} or more; {row['recipe']} costs least"
    else:
        near = tied[tied["file_bytes"] <= SAME_SIZE * tied["file_bytes"].min()]
        row = near.sort_values(["loss_increase", "file_bytes"]).to_dict("records")[0]
        text = (
            f"{name}: {len(tied)} of {recipes} cost less than {limit}, with two standard errors added. Of these, "
            f"{row['recipe']} makes the smallest file, or is the cheapest within {100 * (SAME_SIZE - 1):.0f} % of it"
        )
    return Finding(f"{text}: {_cost(row)} {loss.short_unit}, {_size(row)}. Measured once, not tested.")


def _size(row: Row) -> str:
    write = SCALES["file_bytes"].write
    size, dense = write(row["file_bytes"]), row["dense_bytes"]
    if pd.isna(dense):
        return size
    if row["file_bytes"] > dense:
        return f"{size}, more than the weights of the checkpoint ({write(dense)})"
    return f"{size}, {_ratio(row)} times fewer bytes than the weights of the checkpoint"


def _ratio(row: Row) -> str:
    """How many times fewer bytes than the checkpoint has; those of older records are not known."""
    return "–" if pd.isna(row["dense_bytes"]) else f"{row['dense_bytes'] / row['file_bytes']:.2g}"


def _cost(row: Row) -> str:
    error = row["increase_document_standard_error"]
    spread: str = "" if pd.isna(error) else f" ± {number(error, 3)}"
    return f"{row['loss_increase']:+.3f}{spread}"
