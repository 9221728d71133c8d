from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import made
from trainlarge.results.frames import load_study
from trainlarge.sweep import cell_results, long_curve
from trainlarge.sweep.long_curve import MOST_ROWS, read_thinned
from trainlarge.sweep.proof import DamagedFileError


def _write(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


@pytest.mark.parametrize("count", [1, 2, MOST_ROWS, MOST_ROWS + 1, 50_000])
def test_exact_rows_are_kept_the_first_the_last_and_the_lowest_among_them(count: int, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    rows = _write(file, [{"step": step, "loss": 3 + math.sin(step / 700)} for step in range(1, count + 1)])
    kept, digest = read_thinned(file)
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len(kept) == count if count <= MOST_ROWS else 0.4 * MOST_ROWS < len(kept) <= MOST_ROWS
    assert kept[0] == rows[0] and kept[-1] == rows[-1] and min(rows, key=lambda row: row["loss"]) in kept
    assert all(rows[row["step"] - 1] == row for row in kept)
    steps = [row["step"] for row in kept]
    assert steps == sorted(set(steps))
    assert max(later / former for former, later in pairwise([*steps, steps[-1]])) <= 2


def test_rows_with_an_evaluation_stay_where_they_are_few(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "loss": 1000 / step if step % 97 == 0 else None} for step in range(1, 40_001)]
    kept, _ = read_thinned(_write(file, rows) and file)
    assert [row for row in kept if row["loss"]] == [row for row in rows if row["loss"]]
    assert len(kept) <= MOST_ROWS and kept[0] == rows[0] and kept[-1] == rows[-1]


def test_a_study_is_read_with_a_long_curve_and_without_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    folder = next(study.folders("train"))
    rows = [{**folder.metrics()[0], "step": step} for step in range(1, 20_001)]
    folder.write_metrics(rows)
    folder.write_record_data(folder.record_data())
    curves = load_study(study).curves
    own = curves[curves["cell"] == folder.id]
    assert len(own) <= MOST_ROWS and own["step"].iloc[[0, -1]].tolist() == [1, 20_000]
    monkeypatch.setattr(cell_results, "LONG_BYTES", 1 << 40)
    assert len(load_study(study).curves) == 20_000 + len(curves) - len(own), "a shorter file is read whole"
    monkeypatch.setattr(cell_results, "LONG_BYTES", 4 << 20)
    content = (folder.path / "metrics.jsonl").read_bytes()
    for damage in (b"", b"[1]\n", b"{\n"):
        (folder.path / "metrics.jsonl").write_bytes(content[:5_000_000] + b"\n" + damage + content[5_000_000:])
        with pytest.raises(DamagedFileError, match=rf"metrics.jsonl=damaged.*redo {folder.id}"):
            load_study(study)


def test_a_torn_last_line_is_dropped_as_in_a_short_curve(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    rows = _write(file, [{"step": step} for step in range(100)])
    with file.open("a") as end:
        end.write('{"step": 1')
    assert read_thinned(file)[0] == rows
    assert long_curve.thinned([]) == []
