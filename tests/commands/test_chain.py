"""A study of several sweep files, run as one command: pretrain, finetune on two tasks, choose, compress."""

from __future__ import annotations

import io
import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard

from trainlarge.cli import main
from trainlarge.results.frames import load_study
from trainlarge.sweep.store import CellFolder, Study

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "sst2" / "train.jsonl.zst"
"""Rows of SST-2, beside the checkout."""
ROWS = 240


def rows() -> list[dict[str, Any]]:
    """Real rows where they are; otherwise made-up ones, whose label is in one of their words."""
    if REAL.is_file():
        with REAL.open("rb") as packed:
            lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(packed), encoding="utf-8")
            return [json.loads(line) for line in islice(lines, ROWS)]
    draw = random.Random(0)
    words = ["the", "a", "film", "was", "long", "short"]
    labels = [draw.randrange(2) for _ in range(ROWS)]
    return [{"sentence": " ".join([*draw.choices(words, k=6), f"{label}"]), "label": label} for label in labels]


TEXT = {"override /data": "text"}
CLASSES = {"override /task": "classification"}
COMMON: dict[str, Any] = {
    "study": "tiny",
    "impl": {"device": "cpu"},
    "optim": {"batch": 256},
    "schedule": {"warmup_steps": 4},
}
LABELLED: dict[str, Any] = {
    "defaults": [TEXT, CLASSES],
    "checkpoint": "every",
    "data": {"files": ["rows.jsonl"], "text_column": "sentence", "sequence_length": 16},
    **COMMON,
}
SELECTED = {"selection_share": 0.25, "evaluation_rows": 32}
FILES: dict[str, dict[str, Any]] = {
    "1_train_pretrain": {
        "defaults": [TEXT],
        "data": {"files": ["prose.txt"], "vocab_size": 300, "sequence_length": 16},
        "task": {"evaluation_rows": 32},
        **COMMON,
        "sweep": {"blocks": [{"arch.width": 16, "arch.depth": 1, "budget": "8 steps"}]},
    },
    "2_train_sst2": {
        **LABELLED,
        "task": SELECTED,
        "sweep": {"blocks": [{"optim.lr": [1e-2, 1e-3], "budget": ["1 epoch", "2 epochs"]}]},
    },
    "3_train_pairs": {
        **LABELLED,
        "task": {**SELECTED, "second_text_column": "second"},
        "sweep": {"blocks": [{"budget": ["6 steps", "12 steps"]}]},
    },
    "4_compress": {
        "study": "tiny",
        "impl": {"device": "cpu"},
        "sweep": {
            "where": "task.name == 'classification'",
            "best_of": ["optim.lr", "budget"],
            "blocks": [{"checkpoint": "every", "prune.sparsity": 0.5, "quantize.bits": [8, 4]}],
        },
    },
}


@pytest.fixture
def chain(tmp_path: Path, tiny_text: Path, study: Study, inline: None) -> Path:
    """Four files: a text, two labelled tasks that start from what it trained, the compression of the best."""
    data, folder = tmp_path / "data", tmp_path / "sweeps" / "chain"
    for each in (data, folder):
        each.mkdir(parents=True)
    (data / "prose.txt").write_text(tiny_text.read_text())
    labelled = ({**row, "second": row["sentence"][::-1]} for row in rows())
    (data / "rows.jsonl").write_text("\n".join(map(json.dumps, labelled)))
    for name, content in FILES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


COMMAND = ["chain", "launcher=inline", "tracking=none", "sweep.data_folder=data"]


def cells_by_file(more: list[str], capfd: pytest.CaptureFixture[str]) -> dict[str, tuple[int, int]]:
    """Sweep file -> its cells, and those of them that are done."""
    capfd.readouterr()
    assert main(["plan", *COMMAND, *more, "--json"]) == 0
    return {part["file"]: (part["cells"], part["done"]) for part in json.loads(capfd.readouterr().out)["stages"]}


def written(study: Study) -> dict[CellFolder, int]:
    """When the record of each cell was written."""
    folders = [folder for stage in ("train", "compress") for folder in study.folders(stage)]
    return {folder: folder.record_path.stat().st_mtime_ns for folder in folders}


def parents_of(folders: list[CellFolder]) -> set[str]:
    return {str(folder.cell().config.checkpoint) for folder in folders}


def test_the_whole_chain_is_one_command(
    chain: Path, study: Study, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"1_train_pretrain": 1, "2_train_sst2": 4, "3_train_pairs": 2, "4_compress": 4}
    assert cells_by_file([], capfd) == {name: (count, 0) for name, count in counts.items()}
    assert not study.path.exists(), "the plan of the whole chain is made before anything runs"
    capfd.readouterr()
    assert main(["plan", *COMMAND, "--calibrate", "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    seconds = [part["total"]["seconds"] for part in plan["stages"]]
    assert plan["elapsed_seconds"] == pytest.approx(sum(seconds))
    assert all(seconds), "finetuning by the steps of what it starts from, recipes by their evaluations"
    assert main(["run", *COMMAND]) == 0
    assert cells_by_file([], capfd) == {name: (count, count) for name, count in counts.items()}
    trained = list(study.folders("train"))
    pretrained = [folder for folder in trained if folder.cell().as_train.checkpoint is None]
    tuned = [folder for folder in trained if folder not in pretrained]
    assert parents_of(tuned) == {folder.id for folder in pretrained}
    assert parents_of(list(study.folders("compress"))) == best(tuned)
    frame = load_study(study, allow_mixed=True).compression
    assert set(frame["parent"]) == best(tuned)

    assert (study.path / "report" / "index.html").is_file()
    # Written once is enough: figures take longer than all that is trained here.
    monkeypatch.setattr("trainlarge.commands.run.print_report", lambda _study: None)
    before = written(study)
    assert main(["run", *COMMAND]) == 0
    assert written(study) == before, "a rerun does nothing"

    wider = ["pretrain.arch.width=16,32"]
    expected = {name: (2 * count, count) for name, count in counts.items()}
    assert cells_by_file(wider, capfd) == expected, "in every link, a new width adds only its own cells"
    assert main(["run", *COMMAND, *wider]) == 0
    after = written(study)
    assert len(after) == 2 * len(before) and before.items() <= after.items()


def best(tuned: list[CellFolder]) -> set[str]:
    """Of each task the cell with the highest accuracy on its selection part, then the lowest loss there."""
    by_task: dict[str | None, list[tuple[float, float, str]]] = {}
    for folder in tuned:
        scores = folder.train_record().selection
        second = folder.cell().as_train.data.sequence_length, folder.cell().as_train.task.label_columns
        by_task.setdefault(str(second), []).append((-scores["accuracy"], scores["loss"], folder.id))
    return {min(group)[-1] for group in by_task.values()}
