"""A study on several sources, evaluated on other texts: from the command line to the frames, in both stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groups import data_group
from trainlarge.cli import main
from trainlarge.data.text import TextFiles
from trainlarge.results.frames import load_study
from trainlarge.results.report.tables_of_texts import text_tables

TINY = ["arch.width=16", "arch.depth=1", "arch.heads=1", "budget=4 steps", "optim.batch=64", "data.sequence_length=16"]
QUIET = ["tracking=none", "impl.device=cpu"]


def trained_row(path: Path) -> str:
    """A row of a file that is trained on."""
    rows = path.read_text().splitlines()
    split = TextFiles.from_data(data_group({"name": "text", "files": [str(path)], "split": "grouped"}))
    return next(row for row in rows if split.holds("train", json.loads(row)["text"]))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for name, words in (("a", "one two three "), ("b", "red green blue "), ("c", "x = y + z; ")):
        rows = [json.dumps({"text": f"{name} {number} " + words * 40}) for number in range(80)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    (folder / "c.jsonl").open("a").write("\n" + trained_row(folder / "a.jsonl"))
    return folder


def test_sources_and_texts_become_columns_of_both_stages(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path))
    data = [
        "data=text",
        f"data.sources={{a: {{files: [{texts}/a.jsonl], weight: 1}}, b: {{files: [{texts}/b.jsonl], weight: 3}}}}",
        f"data.evaluations={{c: {{files: [{texts}/c.jsonl]}}}}",
        "data.vocab_size=280",
        "task.evaluation_rows=8",
    ]
    train = ["train", "-m", "study=mixed", *data, *TINY, *QUIET, "data.sources.a.weight=1,2"]
    assert main(train) == 0
    compress = ["compress", "-m", "study=mixed", "checkpoint=every", "quantize=uniform", "quantize.bits=32,4", *QUIET]
    assert main(compress) == 0
    frames = load_study(tmp_path / "mixed")
    cells = frames.cells
    assert sorted(cells["a_share"]) == pytest.approx([0.25, 0.4], abs=0.02)
    assert cells["a_tokens"].add(cells["b_tokens"]).eq(cells["train_tokens"]).all()
    seen = cells["a_epochs"] * cells["a_tokens"] + cells["b_epochs"] * cells["b_tokens"]
    assert seen.to_list() == pytest.approx(cells["tokens"].to_list())
    assert (cells["c_gap"] == cells["c_loss"] - cells["loss"]).all() and cells["c_loss"].gt(0).all()
    assert cells["series"].nunique() == 2 and cells["evaluation_fingerprint"].nunique() == 1
    texts_read = frames.texts.set_index(["text", "use"])
    assert texts_read.loc[("", "train"), "documents"] + texts_read.loc[("", "validation"), "documents"] == 160
    assert texts_read.loc[("c", "evaluation"), ["documents", "trained_documents"]].tolist() == [81, 1]
    table = text_tables(cells, frames.texts)[0]
    sources = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    weights = {row["text"]: row["weight"] for row in sources if row["use"] == "train"}
    assert weights == {"all": "–", "a": "1 to 2", "b": "3"}
    compression = frames.compression
    as_trained = compression[compression["bits"] == 32].set_index("parent")["c_loss"]
    assert as_trained.to_dict() == pytest.approx(cells.set_index("cell")["c_loss"].to_dict(), abs=1e-5)
    assert (compression["c_gap"] == compression["c_loss"] - compression["loss"]).all()
    capsys.readouterr()
    # A rerun does nothing, and the printed command of a cell makes that very cell.
    assert main(train) == 0
    assert "2 done, 0 jobs to run" in capsys.readouterr().out
    assert main(["show", cells["cell"][0], "--study", "mixed"]) == 0
    shown = capsys.readouterr().out
    assert "data.sources.a.weight" in shown and "data.evaluations.c.files" in shown
