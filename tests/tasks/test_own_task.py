"""The page about a task of a user's own package: its files, installed as a package is, train, compress and report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trainlarge.errors import UserError
from trainlarge.results.frames import load_study
from trainlarge.sweep.store import Study

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own_task.md"
FILES = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
SMALL = ["budget=4 steps,8 steps", "arch.width=16,32", "task.evaluation_rows=64", "impl.device=cpu", "tracking=none"]
"""The study of the page, cut down to a second of training. Its two budgets share a job, its two widths do not."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that holds the page's, as pip installs it."""
    folder, packages = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("packages")
    for name in ("pyproject.toml", "line_order.py", "line_order_task.py"):
        (folder / name).write_text(FILES[name])
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(packages)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(folder)], check=True, capture_output=True)
    return packages


def trainlarge(packages: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(packages), "TRAINLARGE_STUDIES": str(folder / "studies")}
    command = [sys.executable, "-m", "trainlarge.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The working directory of the page, with its logs and its sweep."""
    for name in ("make_logs.py", "sweeps/logs/train.yaml", "sweeps/logs/compress.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(FILES[name])
    subprocess.run([sys.executable, "make_logs.py"], cwd=tmp_path, check=True)
    return tmp_path


def test_the_example_has_under_a_hundred_lines() -> None:
    assert len(FILES) == 6
    assert sum(bool(line.strip()) for text in FILES.values() for line in text.splitlines()) < 100


def test_its_study_trains_compresses_and_reports(installed: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = trainlarge(installed, here, "run", "logs", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    records = {
        stage: [json.loads(path.read_text()) for path in sorted(here.glob(f"studies/logs/{stage}/*/record.json"))]
        for stage in ("train", "compress")
    }
    assert (len(records["train"]), len(records["compress"])) == (4, 8)
    for record in records["train"]:
        assert record["config"]["task"]["name"] == "line_order" and record["config"]["task"]["swapped_share"] == 0.5
        assert 0 < record["loss"] < 2 and 0 <= record["accuracy"] <= 1
    page = (here / "studies/logs/report/index.html").read_text(encoding="utf-8")
    assert "share of rows whose order is told right" in page and "label frequencies" in page
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(here / "studies"))
    assert len(load_study("logs").cells) == 4, "also where the package is not installed"
    with pytest.raises(UserError, match=r"config.yaml=task.name=line_order is not valid: must be one of mlm, .* pack"):
        next(Study.named("logs").folders("train")).cell()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("line_order.py", "import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("line_order.py", "LineOrderConfig = 3\n", "must be a dataclass that inherits from trainlarge.config.task."),
    ],
)
def test_a_task_that_cannot_be_used_is_told_and_stops_nothing_else(
    name: str, content: str, said: str, installed: Path, here: Path
) -> None:
    whole = (installed / name).read_text()
    (installed / name).write_text(content)
    try:
        done = trainlarge(installed, here, "train", "task=line_order")
    finally:
        (installed / name).write_text(whole)
    warning, error = done.stderr.strip().splitlines()
    assert warning.startswith("task=line_order is left out: line_order:LineOrderConfig (") and said in warning
    assert done.returncode == 2 and error.startswith("error: task=line_order is not valid: must be one of ")
