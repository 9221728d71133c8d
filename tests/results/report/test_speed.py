from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from trainlarge.results.frames import StudyFrames
from trainlarge.results.latencies import LATENCY, load_latencies
from trainlarge.results.report.speed import speed_section
from trainlarge.sweep.latencies import Latency, keep_latencies
from trainlarge.sweep.store import Study


def row(cell: str, stage: str, runtime: str, speedup: float | None, over_checkpoint: float | None = None) -> Latency:
    """One model by one runtime, dense at 8 ms; without a speedup, one that is not installed."""
    numbers = {} if speedup is None else {
        "seconds": 0.008 / speedup, "seconds_low": 0.007 / speedup, "seconds_high": 0.010 / speedup,
        "speedup": speedup, "speedup_low": 0.9 * speedup, "speedup_high": 1.1 * speedup,
        "checkpoint_speedup": over_checkpoint, "model_bytes": 4_000_000, "working_bytes": 1_000_000,
        "kernel": "mm (60%)",
    }  # fmt: skip
    return Latency(
        cell=cell, stage=stage, runtime=runtime, batch=8, length=64, device="cpu", device_name="Test CPU", threads=2,
        versions="torch 2", features="AVX512_VNNI", shared=False, measured=0.0, rounds=30,
        why_empty=None if numbers else f"not installed: pip install {runtime}", **numbers,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def measured(frames: StudyFrames, tmp_path: Path) -> Study:
    """A checkpoint and a compressed model of it, by four runtimes."""
    study = Study(tmp_path / "made")
    study.path.mkdir()
    compressed = frames.compression.iloc[0]
    cells = ((compressed["parent"], "train", None), (compressed["cell"], "compress", 1.7))
    for cell, stage, cut in cells:
        rows = [row(cell, stage, name, ratio, cut) for name, ratio in (("dense", 1.0), ("int8", 2.0), ("onnx", 1.5))]
        keep_latencies(study, [*rows, row(cell, stage, "openvino", None)])
    return study


def test_the_section_says_what_is_fastest_and_what_has_no_numbers(
    measured: Study, frames: StudyFrames, tmp_path: Path
) -> None:
    section = speed_section(measured, frames, tmp_path)
    assert section is not None
    assert section.found == [
        "On Test CPU with 2 threads, 8 rows of 64 tokens at once: of 2 runtimes beside dense, int8 is fastest, 2 times "
        "dense (median over 2 models).",
        "1 model that was cut or factorized: 1.7 to 1.7 times as fast as the checkpoint on Test CPU, 8 rows of 64 "
        "tokens, both as dense.",
    ]
    assert section.not_found == ["openvino computed no model: not installed: pip install openvino."]
    [table] = section.tables
    assert len(table.rows) == 6 and all(len(line) == len(table.header) for line in table.rows)
    [line] = [line for line in table.rows if line[1] == "int8" and line[8] == "1.70"]
    assert line[2:8] == ["8", "64", "4", "3.5 to 5", "2.00", "1.80 to 2.20"] and line[9:11] == ["5 MB", "mm (60%)"]
    [(drawing, description, address)] = section.figures
    assert address.startswith("data:image/svg+xml") and (tmp_path / f"{drawing.name}.png").stat().st_size > 5000
    assert description == "Time of a row against the score of 2 models by 3 runtimes; the least is 0.5 ms, by int8."


def test_nothing_is_said_of_a_study_without_measurements(frames: StudyFrames, tmp_path: Path) -> None:
    assert speed_section(Study(tmp_path), frames, tmp_path) is None
    assert list(load_latencies(Study(tmp_path), frames).columns) == list(LATENCY)


def test_the_frame_has_the_quality_of_each_cell(measured: Study, frames: StudyFrames) -> None:
    frame = load_latencies(measured, frames)
    assert list(frame.columns) == list(LATENCY) and len(frame) == 8
    losses = pd.concat([frames.cells, frames.compression]).set_index("cell")["loss"]
    assert (frame["loss"] == losses.reindex(frame["cell"]).to_numpy()).all()
    assert frame.loc[frame["runtime"].eq("int8"), "rows_per_second"].tolist() == [2000.0, 2000.0]
    assert frame.loc[frame["runtime"].eq("openvino"), "seconds"].isna().all()
