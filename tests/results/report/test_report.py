from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

import made
from trainlarge.errors import UserError
from trainlarge.results.frames import load_study
from trainlarge.results.report.page import write_report
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study

HEADINGS = (
    "What was found",
    "What was not found",
    "Figures",
    "Tables",
    "Environment and provenance",
    "Read it in pandas",
    "Run it again",
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def page(made_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a copy of the made study."""
    return write_report(Study(shutil.copytree(made_study.path, tmp_path_factory.mktemp("reports") / "some")))


def test_the_page_says_what_it_should(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for part in (
        *HEADINGS,
        "d128/L2 falls below d64/L1",
        "Test CPU",
        "train: 12 done · compress: 288 done",
        "1.10 (from 1.10 to 1.10)",
        "trainlarge report some",
    ):
        assert part in text
    assert text.count("<figure") == 7


def test_the_page_asks_for_nothing_from_outside(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", text) + re.findall(r"url\(([^)]*)", text)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert "<script" not in text and "@import" not in text


def test_figures_and_frames_lie_beside_it(page: Path) -> None:
    assert len(list(page.parent.glob("*.png"))) == len(list(page.parent.glob("*.svg"))) == 7
    for name, frame in load_study(page.parents[1]).tables().items():
        assert len(pd.read_csv(page.parent / f"{name}.csv")) == len(frame)
    assert not list(page.parent.glob(".*"))


@pytest.mark.long
def test_equal_studies_give_equal_pages(page: Path) -> None:
    before = page.read_bytes()
    assert write_report(page.parents[1]).read_bytes() == before


def test_without_compression_and_with_failed_cells(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    next(study.folders("train")).write_status(Status(State.FAILED, attempts=1, error="<b>out of memory</b>"))
    text = write_report(study).read_text(encoding="utf-8")
    assert "train: 2 done, 1 failed · compress: no cells yet" in text
    assert "&lt;b&gt;out of memory" in text and "<b>out" not in text
    assert "Nothing was compressed yet." in text
    assert text.count("<figure") == 5


def test_a_single_cell_is_reported(tmp_path: Path) -> None:
    study = Study(tmp_path / "some")
    folder = made.make_train_cell(study, (64, 1), 7.5)
    made.make_compress_cell(study, folder, 0.3, 4)
    assert "Only d64/L1 was trained" in write_report(study).read_text(encoding="utf-8")


def test_losses_that_cannot_be_compared_are_not_drawn(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    made.make_train_cell(study, (64, 1), 15.0, data={"fingerprint": "x", "evaluation_fingerprint": "another"})
    text = write_report(study).read_text(encoding="utf-8")
    assert "Losses are not compared: cells differ in evaluation_fingerprint" in text
    assert "<figure" not in text


def test_a_study_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one finished train cell"):
        write_report(Study(tmp_path / "some"))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is on the PATH")
def test_a_browser_shows_headings_and_images(page: Path, tmp_path: Path) -> None:
    # A proxy that does not exist: any request but to the file itself would fail.
    quiet = (
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--proxy-server=127.0.0.1:1",
    )
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        *quiet,
        f"--user-data-dir={tmp_path}",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [heading for heading in HEADINGS if f">{heading}</h2>" not in done.stdout] == []
    assert done.stdout.count('<img src="data:image/svg+xml;base64,') == 7


def test_a_study_whose_cells_all_diverged_has_a_report(tmp_path: Path) -> None:
    study = Study(tmp_path / "broken")
    made.make_train_cell(study, (64, 1), 7.5, diverged=True, loss=None)
    text = write_report(study).read_text(encoding="utf-8")
    assert "Training diverged in 1 of 1 cells" in text and "<figure" not in text
