"""The report of a study: one self-contained HTML page, its figures and the frames as CSV."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape
from matplotlib.figure import Figure

from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.plateau import frequency_loss_of
from trainlarge.results.comparable import CLOCKS, LOSS, differences, missed, timed
from trainlarge.results.frames import StudyFrames, find_study, load_study
from trainlarge.results.model_folders import of_folders
from trainlarge.results.recipes import keeps_shapes, same_task
from trainlarge.results.report.descriptions import (
    bytes_description,
    increase_description,
    size_description,
    training_description,
)
from trainlarge.results.report.figures import bytes_figure, increase_figure, size_figure, training_figure
from trainlarge.results.report.findings import findings, summary
from trainlarge.results.report.findings_of_folders import folder_table
from trainlarge.results.report.style import save
from trainlarge.results.report.tables import Table, facts, tables
from trainlarge.results.scores import scores
from trainlarge.sweep.files import make_folder, replacing, write_text
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import CellFolder, Study

SHOWN_ERRORS = 10
SHOWN_COMMANDS = 20


@dataclass(frozen=True)
class Drawing:
    """A figure of the report."""

    name: str
    """File name without suffix."""
    title: str
    """Heading above it."""
    caption: str
    """How to read it."""
    draw: Callable[[StudyFrames], Figure]
    """Makes it."""
    describe: Callable[[StudyFrames], str]
    """Says what it shows, for those who do not see it."""


_SECONDS = Drawing(
    "loss_against_seconds",
    "Loss against training time",
    "Every point is a checkpoint whose learning rate has decayed. Time is steps × the steady-state step time, so that "
    "other work on the device does not reorder the lines.",
    lambda frames: training_figure(frames, "model_seconds"),
    lambda frames: training_description(frames.cells, "model_seconds"),
)
_TRAINING = (
    Drawing(
        "loss_against_flops",
        "Loss against FLOPs",
        "The same checkpoints against floating-point operations: what hardware does best plays no part.",
        lambda frames: training_figure(frames, "flops"),
        lambda frames: training_description(frames.cells, "flops"),
    ),
    Drawing(
        "loss_against_steps",
        "Loss against steps",
        "The same checkpoints against optimizer steps.",
        lambda frames: training_figure(frames, "step"),
        lambda frames: training_description(frames.cells, "step"),
    ),
    Drawing(
        "loss_against_size",
        "Loss against size",
        "One line per budget; the lowest point of a line is the best size for it.",
        lambda frames: size_figure(frames.cells),
        lambda frames: size_description(frames.cells),
    ),
    Drawing(
        "accuracy_against_size",
        "Accuracy against size",
        "The same, as the share of predictions that are right.",
        lambda frames: size_figure(frames.cells, "accuracy"),
        lambda frames: size_description(frames.cells, "accuracy"),
    ),
)
_BYTES = Drawing(
    "loss_against_bytes",
    "Loss against file size",
    "Every checkpoint under every recipe; the size is that of the packed file.",
    lambda frames: bytes_figure(frames.compression, frequency_loss=frequency_loss_of(frames.cells)),
    lambda frames: bytes_description(frames.compression),
)
_INCREASE = Drawing(
    "increase_by_recipe",
    "What compression costs each size",
    "Loss after compression less loss before, only quantized and only pruned; bars are standard errors.",
    lambda frames: increase_figure(frames.compression),
    lambda frames: increase_description(frames.compression),
)


def write_report(study: str | Path | Study) -> Path:
    """Write ``<study>/report/index.html`` and the files next to it.

    The page holds its figures and asks for nothing from outside. Cells that are not done are counted, not waited for.

    Returns:
        Path of the page.

    Raises:
        UserError: when there is no such study, nothing in it is done, or the folder of the report is a link.
    """
    study = find_study(study)
    frames = load_study(study, allow_mixed=True)
    folder = study.path / "report"
    make_folder(folder, inside=study.path)
    for name, frame in frames.tables().items():
        with replacing(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    write_text(folder / "index.html", page_text(study, frames.with_budgets_in_words(), folder))
    return folder / "index.html"


def page_text(study: Study, frames: StudyFrames, folder: Path) -> str:
    """The page about these frames of a study; its figures are written to ``folder`` too."""
    return _template().render(**_context(study, frames, folder))


def drawings(frames: StudyFrames) -> list[Drawing]:
    """The figures that the frames allow.

    None where losses cannot be compared or every cell diverged; none in seconds over several devices or without cells
    that had one alone.
    """
    if frames.cells.empty or differences(frames.cells, LOSS):
        return []
    with_times = timed(frames.cells)
    seconds = [] if with_times.empty or differences(with_times, CLOCKS) else [_SECONDS]
    known = same_task(frames.compression).dropna(subset=["series"])
    sizes = [] if known.empty else [_BYTES]
    increases = [_INCREASE] if keeps_shapes(known).any() else []
    # Those against size have a line for each budget.
    training = [one for one in _TRAINING if "size" not in one.name or not missed(frames.cells).all()]
    if "accuracy" not in scores(frames.cells):
        training = [one for one in training if "accuracy" not in one.name]
    return [*seconds, *training, *sizes, *increases]


def _context(study: Study, frames: StudyFrames, folder: Path) -> dict[str, object]:
    evidence, trained = Evidence(frames), frames.with_losses()
    all_findings = findings(frames, evidence)
    statuses = {stage: [(folder, folder.status()) for folder in study.folders(stage)] for stage in STAGES}
    errors, commands = (
        _errors(statuses),
        list(dict.fromkeys([*frames.cells["command"], *frames.compression["command"]])),
    )
    return {
        "study": study.name,
        "cells": frames.cells,
        "summary": summary(frames, evidence),
        "found": [finding.text for finding in all_findings if finding.is_result],
        "not_found": [finding.text for finding in all_findings if not finding.is_result],
        "states": [_states(stage, [status for _, status in those]) for stage, those in statuses.items()],
        "errors": errors[:SHOWN_ERRORS],
        "more_errors": len(errors[SHOWN_ERRORS:]),
        "figures": [
            (drawing, drawing.describe(trained), _embedded(drawing, trained, folder)) for drawing in drawings(trained)
        ],
        "tables": _tables(trained, evidence),
        "facts": facts(frames),
        "commands": commands[:SHOWN_COMMANDS],
        "more_commands": len(commands[SHOWN_COMMANDS:]),
    }


def _tables(frames: StudyFrames, evidence: Evidence) -> list[Table]:
    """Those of train cells and what was made of them, and that of Hugging Face folders."""
    made = [] if frames.cells.empty else tables(frames, evidence)
    return made if of_folders(frames.compression).empty else [*made, folder_table(frames.compression)]


def _embedded(drawing: Drawing, frames: StudyFrames, folder: Path) -> str:
    """Write the figure to ``folder`` and return it as a data address."""
    paths = {path.suffix: path for path in save(drawing.draw(frames), folder / drawing.name)}
    return "data:image/svg+xml;base64," + base64.b64encode(paths[".svg"].read_bytes()).decode()


def _states(stage: str, statuses: list[Status]) -> str:
    """How many cells of a stage are in which state, such as ``train: 11 done, 1 failed``."""
    counts = Counter(status.state for status in statuses)
    phrase = ", ".join(f"{counts[state]:,} {state}" for state in State if counts[state])
    return f"{stage}: {phrase or 'no cells yet'}"


def _errors(statuses: Mapping[str, list[tuple[CellFolder, Status]]]) -> list[str]:
    """A line for each cell that failed, with the error of its last attempt."""
    return [
        f"{stage} {folder.id}: {status.error}"
        for stage, those in statuses.items()
        for folder, status in those
        if status.state is State.FAILED
    ]


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("trainlarge.results.report", "."),
        autoescape=select_autoescape(("html", "j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")
