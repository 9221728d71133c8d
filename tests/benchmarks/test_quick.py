"""Every benchmark runs, and measures what it says; the numbers are not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if '"--quick"' in path.read_text(encoding="utf-8"))


DATA = BENCHMARKS.parents[1] / "shared" / "data"
NEED_DATA = {"finetuning.py", "tokenizing.py"}
"""Those that measure on real texts."""


def test_there_are_benchmarks() -> None:
    assert {"batched_variants.py", "compress_grid.py", "throughput.py"} <= set(SCRIPTS)


@pytest.mark.long
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_quick_run_tells_both_sides(script: str, tmp_path: Path) -> None:
    if script in NEED_DATA and not DATA.is_dir():
        pytest.skip(f"needs the data sets in {DATA}")
    command = [sys.executable, str(BENCHMARKS / script), "--quick", "--json", str(tmp_path / "rows.json")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    # The overhead of a sweep is measured against limits, which stand beside its rows.
    rows = told["rows"] if isinstance(told, dict) else told
    compared = [row for row in rows if "ratio" in row]
    assert compared or "limits" in told
    assert all(row["ours"] > 0 and row["theirs"] > 0 and row["device"] for row in compared)
