"""``trainlarge ls``: the studies that there are, or the cells of one with loss, size and id."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yaml import YAMLError

from trainlarge.commands.call import Call
from trainlarge.commands.status import KINDS, cell_state
from trainlarge.commands.studies import all_studies, existing_study
from trainlarge.commands.terminal import columns, path_in_words
from trainlarge.commands.verbs import verb_parser
from trainlarge.config import typed_json
from trainlarge.config.budget import parse_budget
from trainlarge.config.group import Plain
from trainlarge.config.plain import from_plain
from trainlarge.config.schema import CONFIGS, CompressConfig
from trainlarge.errors import UserError
from trainlarge.results.units import prefixed_text, seconds_text
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.cell_results import CONFIG
from trainlarge.sweep.collection import collection_paused
from trainlarge.sweep.config_yaml import from_own_yaml
from trainlarge.sweep.files import read_bytes
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study, studies_root

NOTHING = "–"
_bytes, _count = prefixed_text("B"), prefixed_text("")


def main(call: Call) -> int:
    """List studies, or the cells of one."""
    arguments = parser()
    options = arguments.parse_args(call.arguments)
    if options.study is None:
        if options.stage or options.state:
            arguments.error("--stage and --state need a study")
        studies = listed_studies()
        print(_json_lines(studies) if options.json else studies_text(studies))
        return 0
    cells = listed(existing_study(options.study), options.stage, options.state)
    print(_json_lines(cells) if options.json else cells_text(cells))
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("ls")
    made.add_argument("study", nargs="?", help="list the cells of this study, those with the lowest loss first")
    made.add_argument("--stage", choices=STAGES, help="only cells of this stage")
    made.add_argument("--state", choices=KINDS, help="only cells in this state")
    made.add_argument("--json", action="store_true", help="for programs: one line of JSON per cell, or per study")
    return made


def _json_lines(rows: Sequence[object]) -> str:
    return "\n".join(json.dumps(typed_json.plain(row), allow_nan=False) for row in rows)


@dataclass(frozen=True)
class ListedCell:
    """One row of the list."""

    cell: str
    """Its id."""
    stage: str
    """Its stage."""
    state: str
    """One of ``KINDS``."""
    what: str
    """What is trained, or what was done to which checkpoint."""
    loss: float | None = None
    """Loss of a done cell; None where it diverged."""
    parameters: int | None = None
    """Parameters of a done train cell."""
    file_bytes: int | None = None
    """Size of the packed file of a done compress cell."""

    @property
    def size(self) -> str:
        """Size with its unit."""
        if self.file_bytes is not None:
            return _bytes(self.file_bytes)
        return NOTHING if self.parameters is None else f"{_count(self.parameters)} parameters"


def listed(study: Study, stage: str | None = None, state: str | None = None) -> list[ListedCell]:
    """The cells of a study, stage by stage: those that are done by their loss, then the others by their state.

    Args:
        stage: only those of this stage.
        state: only those in this state.
    """
    with collection_paused():
        cells = [_listed(folder) for each in STAGES if stage in (None, each) for folder in study.folders(each)]
    order = {kind: place for place, kind in enumerate([State.DONE, *KINDS])}
    return sorted(
        (cell for cell in cells if state in (None, cell.state)),
        key=lambda cell: (STAGES.index(cell.stage), order[cell.state], cell.loss is None, cell.loss or 0.0, cell.cell),
    )


def cells_text(cells: list[ListedCell]) -> str:
    """The list for people."""
    if not cells:
        return "no cells"
    rows = [
        [cell.cell, cell.stage, cell.state, cell.what, NOTHING if cell.loss is None else f"{cell.loss:.4f}", cell.size]
        for cell in cells
    ]
    return columns(("cell", "stage", "state", "what", "loss", "size"), rows, texts=4)


@dataclass(frozen=True)
class ListedStudy:
    """One row of the list of studies."""

    study: str
    """Its name."""
    path: str
    """Its folder."""
    cells: dict[str, int]
    """Stage -> its cells."""
    done: dict[str, int]
    """Stage -> those that are done."""
    age: float
    """Seconds since a command made cells in it, or left other files."""


def listed_studies() -> list[ListedStudy]:
    """All studies, the last that changed first."""
    return sorted(map(_listed_study, all_studies()), key=lambda study: study.age)


def studies_text(studies: list[ListedStudy]) -> str:
    """The list of studies for people."""
    root = studies_root()
    if not studies:
        return f"no study in {root} yet; 'trainlarge run quickstart' makes one"
    rows = [
        [one.study, *(f"{one.done[stage]} of {one.cells[stage]}" for stage in STAGES), f"{seconds_text(one.age)} ago"]
        for one in studies
    ]
    header = ("study", *(f"{stage} cells done" for stage in STAGES), "changed")
    return f"{columns(header, rows, texts=1)}\n\nin {root}; the cells of one: trainlarge ls STUDY"


def _listed_study(study: Study) -> ListedStudy:
    done = {stage: [folder.says_done() for folder in study.folders(stage)] for stage in STAGES}
    cells = {stage: len(those) for stage, those in done.items()}
    sums = {stage: sum(those) for stage, those in done.items()}
    return ListedStudy(study.name, str(study.path), cells, sums, _age(study.path))


def _age(study: Path) -> float:
    """Seconds since the study, or what is directly in it, was changed: each command is noted there."""
    return max(0.0, time.time() - max(path.lstat().st_mtime for path in (study, *study.iterdir())))


def _listed(folder: CellFolder) -> ListedCell:
    state = cell_state(folder).state
    try:
        record = folder.record_data() if state == State.DONE else {}
    except UserError:
        # Of another version: not for us to read.
        record = {}
    size = "file_bytes" if folder.stage == "compress" else "parameters"
    numbers = {name: value for name in ("loss", size) if isinstance(value := record.get(name), int | float)}
    what = _what(folder, record.get("config"))
    return typed_json.read(
        ListedCell, {"cell": folder.id, "stage": folder.stage, "state": state, "what": what, **numbers}
    )


def _what(folder: CellFolder, recorded: Plain) -> str:
    """The cell in words, from its record or, where there is none, from its frozen configuration."""
    try:
        plain = recorded or from_own_yaml(read_bytes(f"{folder.location}/{CONFIG}").decode())
        config = from_plain(CONFIGS[folder.stage], plain)
        is_same = bool(recorded) or Cell(folder.stage, config).id == folder.id
    except (OSError, ValueError, LookupError, TypeError, AttributeError, YAMLError):
        is_same = False
    if not is_same:
        # Damaged: `show` says how.
        return NOTHING
    if isinstance(config, CompressConfig):
        return f"{path_in_words(config.checkpoint)}: {config.recipe.describe()}"
    arch, budget = config.arch, parse_budget(config.budget)
    what = f"{arch.name} {arch.width}x{arch.depth}, seed {config.seed}, {budget.in_words}"
    if config.checkpoint is None:
        return what
    return f"{what}, {config.task.name} from {path_in_words(config.checkpoint)}"
