"""The report of a study: one self-contained HTML page, its figures and the frames as CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape

from trainlarge.results.frames import StudyFrames, find_study, load_study
from trainlarge.results.latencies import load_latencies
from trainlarge.results.model_folders import of_folders
from trainlarge.results.report.section import Section, folders_section, section
from trainlarge.results.report.speed import speed_section
from trainlarge.results.report.tables import facts
from trainlarge.results.study_parts import Part, parts_of
from trainlarge.sweep.files import make_folder, replacing, write_text
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import CellFolder, Study

SHOWN_ERRORS = 10
SHOWN_COMMANDS = 20


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
    tables = {**frames.tables(), "texts": frames.texts, "latency": load_latencies(study, frames)}
    for name, frame in tables.items():
        with replacing(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    write_text(folder / "index.html", page_text(study, frames.with_budgets_in_words(), folder))
    return folder / "index.html"


def page_text(study: Study, frames: StudyFrames, folder: Path) -> str:
    """The page about these frames of a study; its figures are written to ``folder`` too."""
    return _template().render(**_context(study, frames, folder))


def _sections(frames: StudyFrames, folder: Path) -> list[Section]:
    """One section per part of the study, without a name where there is one; Hugging Face folders beside several."""
    parts = parts_of(frames)
    if len(parts) < 2:
        return [section(part, folder) for part in parts or [Part("", frames)]]
    sections = [section(part, folder, part.name) for part in parts]
    return sections if of_folders(frames.compression).empty else [*sections, folders_section(frames)]


def _context(study: Study, frames: StudyFrames, folder: Path) -> dict[str, object]:
    speed = speed_section(study, frames, folder)
    sections = [*_sections(frames, folder), *([speed] if speed else [])]
    _write_claims(sections, folder)
    statuses = {stage: [(folder, folder.status()) for folder in study.folders(stage)] for stage in STAGES}
    errors, commands = (
        _errors(statuses),
        list(dict.fromkeys([*frames.cells["command"], *frames.compression["command"]])),
    )
    return {
        "study": study.name,
        "cells": frames.cells,
        "sections": sections,
        "states": [
            _states(stage, [status for _, status in those])
            for stage, those in statuses.items()
            # Compressed models of folders need no train cell.
            if those or frames.compression.empty
        ],
        "errors": errors[:SHOWN_ERRORS],
        "more_errors": len(errors[SHOWN_ERRORS:]),
        "facts": facts(frames),
        "commands": commands[:SHOWN_COMMANDS],
        "more_commands": len(commands[SHOWN_COMMANDS:]),
    }


def _write_claims(sections: Sequence[Section], folder: Path) -> None:
    """Every verdict with all the cells behind it, as ``claims.csv``."""
    rows = [
        (one.name, claim.name, claim.statement, claim.source, verdict.standing, verdict.text, " ".join(verdict.cells))
        for one in sections
        for claim, verdict in one.verdicts
    ]
    frame = pd.DataFrame(rows, columns=["part", "claim", "statement", "source", "standing", "text", "cells"])
    with replacing(folder / "claims.csv") as temporary:
        frame.to_csv(temporary, index=False)


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
