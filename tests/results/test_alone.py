"""Results are read from the study folder alone: where nothing that trains can be imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys, pkgutil, importlib
for name in ("torch", "transformers", "pytorch_lightning", "lightning", "tokenizers", "hydra", "wandb"):
    sys.modules[name] = None
import trainlarge.results
for module in pkgutil.walk_packages(trainlarge.results.__path__, "trainlarge.results."):
    importlib.import_module(module.name)
from trainlarge.results.frames import load_study
from trainlarge.results.report.page import write_report
frames = load_study(sys.argv[1])
print(len(frames.cells), len(frames.curves), len(frames.compression), write_report(sys.argv[1]))
others = ("trainlarge.training", "trainlarge.compression", "trainlarge.tasks", "trainlarge.launch")
assert not [name for name in sys.modules if name.startswith(others)]
"""


def test_a_study_is_read_and_reported_where_no_torch_is(tmp_path: Path) -> None:
    archive = Path(__file__).parents[1] / "old" / "before_digests.zip"
    shutil.unpack_archive(archive, tmp_path)
    study = tmp_path / "studies" / "old"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(study)],
        capture_output=True, text=True, check=False, env={**os.environ, "MPLCONFIGDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["5", "14", "8", str(study / "report" / "index.html")]
    assert "<html" in (study / "report" / "index.html").read_text(encoding="utf-8")
