"""A whole study on a GPU: train, compress, report, in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainlarge.cli import main
from trainlarge.sweep.store import Study

pytestmark = pytest.mark.gpu


def test_a_study_trains_compresses_and_reports(
    study: Study, tiny_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps = tmp_path / "sweeps" / "tiny"
    sweeps.mkdir(parents=True)
    (sweeps / "train.yaml").write_text(
        "# @package _global_\nsweep:\n  blocks:\n    - {arch.width: [16, 32], budget: [20 steps, 40 steps]}\n"
    )
    (sweeps / "compress.yaml").write_text(
        "# @package _global_\nsweep:\n  blocks:\n"
        "    - {checkpoint: every, prune.sparsity: [0.0, 0.5], quantize.bits: [32, 4]}\n"
        "    - {checkpoint: every, prune: wanda, prune.sparsity: 0.5, quantize: gptq, quantize.bits: 4}\n"
    )
    monkeypatch.chdir(tmp_path)
    fixed = [text for text in tiny_overrides if not text.startswith(("arch.", "budget=", "impl."))]
    assert main(["train", "-m", "+sweeps=tiny/train", *fixed, "impl.device=cuda"]) == 0
    common = ["study=tiny", "tracking=none", "impl.device=cuda"]
    assert main(["compress", "-m", "+sweeps=tiny/compress", *common]) == 0
    trained, compressed = (
        {folder.id: folder.record_data() for folder in study.folders(stage)} for stage in ("train", "compress")
    )
    assert len(trained) == 4 and len(compressed) == 4 * 5
    records = [*trained.values(), *compressed.values()]
    assert {record["environment"]["device"] for record in records} == {"cuda"}
    dense = [record for record in compressed.values() if record["sparsity"] == 0 and record["bits"] == 32]
    assert len(dense) == 4
    for record in dense:
        assert record["loss"] == pytest.approx(trained[record["parent"]]["loss"], rel=1e-5)
    for package in ("matplotlib", "pandas"):
        pytest.importorskip(package, reason=f"trained and compressed; a report needs {package}")
    assert main(["report", "tiny"]) == 0
    assert (study.path / "report" / "index.html").stat().st_size > 10_000
