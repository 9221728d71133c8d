from __future__ import annotations

import pandas as pd
import pytest

from trainlarge.results.frames import StudyFrames
from trainlarge.results.report.findings_of_folders import folder_findings, folder_table
from trainlarge.results.report.tables import MOST_ROWS


@pytest.fixture
def folder(frames: StudyFrames) -> pd.DataFrame:
    """What was compressed of one checkpoint, as if that were a Hugging Face folder."""
    rows = frames.compression
    return rows[rows["parent"] == rows["parent"].iloc[0]].assign(checkpoint="bert", dense_bytes=700_000.0)


def told(rows: pd.DataFrame, *recipes: tuple[str, float, float, float]) -> str:
    """The sentence about some recipes: name, increase, standard error, bytes."""
    chosen = rows.iloc[: len(recipes)].copy()
    chosen[["recipe", "loss_increase", "increase_document_standard_error", "file_bytes"]] = list(map(list, recipes))
    (finding,) = folder_findings(chosen)
    return str(finding)


def test_the_smallest_file_that_clearly_costs_nothing_is_named(folder: pd.DataFrame) -> None:
    eight, four = ("8 bit", 0.001, 0.001, 200_000.0), ("4 bit", 0.3, 0.01, 100_000.0)
    edge, unsure = ("edge", 0.017, 0.001, 198_000.0), ("unsure", 0.015, 0.02, 90_000.0)
    assert "2 of 4 recipes cost less than 0.02 nats, with two standard errors added. Of these, 8 bit makes" in told(
        folder, eight, four, edge, unsure
    )
    assert "each of 2 recipes may cost 0.02 nats or more; unsure costs least: +0.015" in told(folder, four, unsure)


def test_the_table_has_few_rows(folder: pd.DataFrame) -> None:
    table = folder_table(pd.concat([folder] * 20, ignore_index=True))
    assert len(table.rows) == MOST_ROWS and "200 of 480 rows" in table.note
    assert len(folder_table(folder).rows) == len(folder) == 24
