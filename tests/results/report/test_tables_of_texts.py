"""The tables of the report about data: counts of each text, how often it was trained on, and losses on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made
from trainlarge.results.frames import load_study
from trainlarge.results.report.page import write_report
from trainlarge.results.report.tables import Table
from trainlarge.results.report.tables_of_texts import text_tables
from trainlarge.sweep.records import TextRow
from trainlarge.sweep.store import Study

ROWS = [
    TextRow(text="", use="train", documents=1500, tokens=90_000, blank_rows=12, replaced_rows=0, repeated_documents=7),
    TextRow(text="", use="validation", documents=80, tokens=5000, trained_documents=3),
    TextRow(text="wiki", use="train", documents=1000, tokens=60_000, long_documents=2),
    TextRow(text="web", use="train", documents=500, tokens=30_000),
    TextRow(text="books", use="evaluation", documents=40, tokens=9000, trained_documents=0),
]


def study_of(path: Path, rows: list[TextRow] | None) -> Study:
    """Two cells on two sources, with other numbers of steps and seeds."""
    study = Study(path)
    for seed, epochs in ((0, 1.0), (1, 2.0)):
        sources = {name: {"tokens": 40_000, "share": share, "epochs": epochs} for name, share in SHARES.items()}
        data: dict[str, Any] = {"fingerprint": "f", "evaluation_fingerprint": "e", "train_tokens": 80_000}
        data |= {"validation_tokens": 5000, "epochs": epochs, "sources": sources}
        data |= {"texts": [row.to_json() for row in rows]} if rows else {}
        texts = {"books": {"loss": 4.5 + seed, "fingerprint": "b", "predictions": 9}}
        made.make_train_cell(study, (64, 1), 7.5, seed, data=data, evaluations=texts)
    return study


SHARES = {"wiki": 0.8, "web": 0.2}


def as_rows(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_each_text_says_what_was_read_of_it_and_how_often_it_was_trained_on(tmp_path: Path) -> None:
    frames = load_study(study_of(tmp_path / "some", ROWS))
    assert len(frames.texts) == len(ROWS), "what cells have in common stands once"
    texts, losses = text_tables(frames.cells, frames.texts)
    whole, held_out, wiki, web, books = as_rows(texts)
    assert (
        whole | {"text": "all", "documents": "1,500", "blank rows": "12", "replaced rows": "0", "repeated": "7"}
        == whole
    )
    assert (whole["tokens in use"], whole["tokens seen"], whole["epochs"]) == ("80,000", "80,000 to 160,000", "1 to 2")
    assert (held_out["in training"], held_out["epochs"], held_out["use"]) == ("3", "–", "validation")
    assert (wiki["share"], wiki["weight"], wiki["very long"], wiki["tokens seen"]) == (
        "80 %",
        "its size",
        "2",
        "40,000 to 80,000",
    )
    assert (web["documents"], web["blank rows"], books["in training"]) == ("500", "–", "0")
    mean = frames.cells["loss"].mean()
    assert as_rows(losses) == [
        {
            "size": "d64/L1",
            "budget": "7.5 s",
            "loss (nats)": f"{mean:.3f}",
            "books loss": "5.000",
            "books gap": f"{5 - mean:+.3f}",
        }
    ]


def test_cells_of_before_texts_were_counted_say_how_much_was_used(tmp_path: Path) -> None:
    frames = load_study(study_of(tmp_path / "some", None))
    texts = as_rows(text_tables(frames.cells, frames.texts)[0])
    assert [row["text"] for row in texts] == ["all", "wiki", "web"] and "documents" not in texts[0]
    assert texts[1]["share"] == "80 %"


def test_they_stand_in_the_page_and_in_a_file(tmp_path: Path) -> None:
    page = write_report(study_of(tmp_path / "some", ROWS))
    text = page.read_text(encoding="utf-8")
    assert ">Texts</h3>" in text and ">Losses on other texts</h3>" in text and "<td>60,000</td>" in text
    assert (
        (page.parent / "texts.csv").read_text().splitlines()[0].startswith("data_fingerprint,text,use,documents,tokens")
    )
