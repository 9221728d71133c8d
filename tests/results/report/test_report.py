from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import made
from contrast import contrast
from trainlarge.errors import UserError
from trainlarge.results.analysis.frontier import frontier
from trainlarge.results.frames import StudyFrames, load_study
from trainlarge.results.report.page import page_text, write_report
from trainlarge.sweep.files import make_folder
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study

HEADINGS = (
    "What was found",
    "What was not found",
    "Which of the paper’s findings hold here",
    "Figures",
    "Tables",
    "Environment and provenance",
    "Read it in pandas",
    "Run it again",
)
PHONE = 358
"""Pixels that are left for a figure on a telephone of 390."""
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
    assert text.count("<figure") == 9


def test_the_page_asks_for_nothing_from_outside(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", text) + re.findall(r"url\(([^)]*)", text)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert "<script" not in text and "@import" not in text


def test_figures_and_frames_lie_beside_it(page: Path) -> None:
    assert len(list(page.parent.glob("*.png"))) == len(list(page.parent.glob("*.svg"))) == 9
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


def _browse(address: str, folder: Path) -> str:
    """The page as Chromium has it after its scripts ran. Any request but to a file would fail: there is no proxy."""
    quiet = (
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--proxy-server=127.0.0.1:1",
    )
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={folder}"]
    done = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is on the PATH")


@needs_chromium
def test_a_browser_shows_headings_and_images(page: Path, tmp_path: Path) -> None:
    shown = _browse(page.as_uri(), tmp_path)
    assert [heading for heading in HEADINGS if f">{heading}</h2>" not in shown] == []
    assert shown.count('<img src="data:image/svg+xml;base64,') == 9


@needs_chromium
def test_a_telephone_shows_the_page_without_scrolling_sideways(page: Path, tmp_path: Path) -> None:
    """In a frame of 390 pixels: headless Chromium makes no window so narrow."""
    measure = """<script>addEventListener("load", () => {
      const page = frames[0].document, images = [...page.images];
      const texts = [...page.querySelectorAll("p, li, td, th, figcaption, pre, h3")];
      document.body.dataset.found = JSON.stringify([
        page.documentElement.scrollWidth, Math.min(...images.map(image => image.clientWidth)),
        Math.max(...images.map(image => image.getBoundingClientRect().right)),
        Math.min(...texts.map(text => parseFloat(getComputedStyle(text).fontSize)))]);
    })</script>"""
    text = page.read_text(encoding="utf-8")
    frame = f'<iframe style="width:390px;height:20000px;border:0" srcdoc="{html.escape(text)}"></iframe>'
    (tmp_path / "phone.html").write_text(f"<!doctype html><meta charset=utf-8><body>{measure}{frame}</body>")
    shown = _browse((tmp_path / "phone.html").as_uri(), tmp_path / "profile")
    found = re.search('data-found="([^"]*)"', shown)
    assert found
    width, image, right, letters = json.loads(html.unescape(found[1]))
    assert width == 390 and right <= 390
    assert image >= PHONE, "letters in figures are as large as they are meant to be"
    assert letters >= 11


def test_text_of_the_page_stands_out_in_light_and_dark(page: Path) -> None:
    style = page.read_text(encoding="utf-8").partition("<style>")[2].partition("</style>")[0]
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in re.findall(r":root \{[^}]*\}", style)[:2])
    assert "prefers-color-scheme: dark" in style and set(light) == set(dark)
    for colours in (light, dark):
        for text in ("ink", "quiet"):
            assert min(contrast(colours[text], colours[behind]) for behind in ("page", "tint", "warning")) >= 4.5
        assert contrast(colours["accent"], colours["tint"]) >= 3 and contrast(colours["alarm"], colours["warning"]) >= 3
    stated = {colour for name in (light, dark) for colour in name.values()}
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", style)) <= {*stated, "#ffffff"}, "every colour has a name"


def test_text_alternatives_say_what_figures_show(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"<h3>([^<]*)</h3>\n<img", text)
    told = [html.unescape(alternative) for alternative in re.findall(r' alt="([^"]*)"', text)]
    assert len(told) == len(titles) == len(set(told)) == 9
    assert not set(told) & set(titles)
    by_title = dict(zip(titles, told, strict=True))
    assert by_title["Loss against training time"] == (
        "Line chart of evaluation loss against training time: 12 checkpoints of 3 series. On the frontier it goes from "
        "3.98 nats at 7.5 s (d64/L2) to 2.31 nats at 60 s (d64/L2)."
    )
    assert "Best: d64/L2 after 7.5 s (3.98 nats)" in by_title["Loss against size"]
    assert "Best: d64/L2 after 7.5 s (32.5%)" in by_title["Accuracy against size"]
    assert "288 models of 3 shapes" in by_title["Loss against file size"]
    assert "The best dense model, d64/L2, has 2.31 nats at 886 kB" in by_title["Loss against file size"]
    assert "8 bit +0.000 to +0.001" in by_title["What compression costs each size"]


def test_a_backend_that_does_not_exist_stops_no_report(tmp_path: Path) -> None:
    """Figures are drawn by Agg, whatever a session has chosen for its windows."""
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    command = [sys.executable, "-m", "trainlarge.cli", "report", study.name]
    environment = {**os.environ, "MPLBACKEND": "module://nowhere", "TRAINLARGE_STUDIES": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
@pytest.mark.parametrize("seeds", [1, 40])
def test_a_large_study_has_a_small_page(seeds: int, frames: StudyFrames, tmp_path: Path) -> None:
    """2,400 cells, of 600 series or of 15: under 1 MB, with the frontier, in tens of seconds."""
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    parts = []
    for number in range(200):
        part = frames.cells.assign(seed=number % seeds, variant=f"optim.lr={number // seeds}")
        part["series"] += f", optim.lr={number // seeds}"
        part["cell"] = [f"{int(cell, 16) ^ number:012x}" for cell in part["cell"]]
        part["loss"] += 0.001 * number
        parts.append(part)
    many = StudyFrames(pd.concat(parts, ignore_index=True), frames.curves, frames.compression)
    make_folder(study.path / "report", inside=study.path)
    text = page_text(study, many, study.path / "report")
    assert len(text.encode()) < 1_000_000
    assert "dots: all 2,400 cells" in (study.path / "report" / "loss_against_flops.svg").read_text(encoding="utf-8")
    assert "all 2,400 are in cells.csv" in text
    for cell in frontier(many.cells, "flops")["cell"]:
        assert cell in text


def test_a_study_whose_cells_all_diverged_has_a_report(tmp_path: Path) -> None:
    study = Study(tmp_path / "broken")
    made.make_train_cell(study, (64, 1), 7.5, diverged=True, loss=None)
    text = write_report(study).read_text(encoding="utf-8")
    assert "Training diverged in 1 of 1 cells" in text and "<figure" not in text
