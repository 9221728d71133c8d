"""``trainlarge show``: all that is known about one cell, as text for the terminal."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import datetime

import yaml

from trainlarge.commands.call import Call
from trainlarge.commands.rerun import is_refused, rerun_command
from trainlarge.commands.studies import all_studies
from trainlarge.commands.verbs import verb_parser
from trainlarge.config.method import is_real
from trainlarge.errors import UserError
from trainlarge.results.scores import task_scores
from trainlarge.results.units import SCALES, prefixed_text, seconds_text, significant
from trainlarge.sweep import store
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.proof import DamagedFileError, damage
from trainlarge.sweep.recorded import Recorded, meanings
from trainlarge.sweep.records import Record, TrainRecord
from trainlarge.sweep.store import CellFolder, Study, studies_root

LOG_LINES = 20
_WRITERS = {"bytes": prefixed_text("B"), "FLOPs": prefixed_text("FLOPs"), "s": seconds_text}


def main(call: Call) -> int:
    """Print a cell."""
    options = parser().parse_args(call.arguments)
    print(show_cell(options.cell, options.study))
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("show")
    add_cell(made)
    return made


def add_cell(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name one cell, as ``find_cell`` takes them."""
    parser.add_argument("cell", help="a cell id, or its start")
    parser.add_argument("--study", help="where to look; default: every study")


def show_cell(text: str, study: str | None = None) -> str:
    """Configuration, state, record, end of the log of a cell, and the command that runs it again.

    Args:
        text: the cell's id, or its start.
        study: name of the study to look in; None: every study.

    Raises:
        UserError: when no cell, or more than one, has such an id, or when its configuration is damaged.
    """
    folder = find_cell(text, study)
    cell = folder.cell()
    log = folder.log.read_text(encoding="utf-8", errors="replace").splitlines() if folder.log.is_file() else []
    sections = {
        _headline(folder, cell): [f"folder: {folder.path}", *_checkpoint(cell)],
        "configuration": yaml.safe_dump(cell.identity["config"], sort_keys=False, allow_unicode=True).splitlines(),
        "record": _record(folder),
        f"log (last {LOG_LINES} lines)": log[-LOG_LINES:] or ["empty"],
        "run it again": [
            folder.redo_command if is_refused(cell) else rerun_command(cell, redo=folder.is_done()),
        ],
    }
    return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections.items())


def find_cell(text: str, study: str | None = None) -> CellFolder:
    """The one cell whose id starts with ``text``, in one study or in all.

    Raises:
        UserError: when there is none, or more than one.
    """
    if study is not None:
        return Study.named(study).find(text)
    return store.find_cell(text, all_studies(), f"a study in {studies_root()}")


def _headline(folder: CellFolder, cell: Cell) -> str:
    status = folder.status()
    retries = f", retries: {status.retries}" if status.retries else ""
    attempts = f" (attempts: {status.attempts}{retries})" if status.attempts else ""
    error = f"\n  error: {status.error}" if status.error else ""
    return f"{cell.stage} cell {cell.id} of study {folder.path.parents[1].name}: {status.state}{attempts}{error}"


def _checkpoint(cell: Cell) -> list[str]:
    """Where a model comes from that starts from another."""
    config = cell.config
    if config.checkpoint is None:
        return []
    kind = "train cell" if config.checkpoint_digest is None else "Hugging Face folder"
    return [f"checkpoint: {kind} {config.checkpoint}"]


def _record(folder: CellFolder) -> list[str]:
    if not folder.says_done():
        return ["none: the cell is not done"]
    try:
        record = folder.record()
    except DamagedFileError as error:
        return [str(error)]
    values, units = record.to_json(), _units(folder, record)
    numbers = {name: value for name in units if isinstance(value := values.get(name), int | float)}
    environment, provenance = record.environment, record.provenance
    software = ", ".join(f"{name} {version}" for name, version in environment.software.items())
    times = {name: datetime.fromtimestamp(getattr(provenance, name)).astimezone() for name in ("started", "ended")}
    return [
        *_lines({name: values.get(name) for name in ("parent", "description")}),
        *(f"{name}: {_number(name, value, units[name])}" for name, value in numbers.items()),
        *_lines(_written(record.data, units["loss"])),
        *_lines({name: value for name, value in environment.to_json().items() if name != "software"}),
        f"software: {software}",
        *_lines({name: getattr(provenance, name) for name in ("commit", "dirty", "host")}),
        *_lines({name: time.isoformat(timespec="seconds") for name, time in times.items()}),
        f"study's command: {provenance.command}",
        *_files(folder, record.files),
    ]


def _files(folder: CellFolder, digests: Mapping[str, str] | None) -> list[str]:
    """Whether the files of the cell are what its record says."""
    if digests is None:
        return ["files: no digests, written by an older version"]
    wrong = damage(folder.path, digests)
    lines = [f"{name}: {what}; to make it again: {folder.redo_command}" for name, what in wrong.items()]
    return [f"files: {len(digests) - len(wrong)} of {len(digests)} as they were written", *lines]


def _written(data: Recorded, loss_unit: str) -> dict[str, object]:
    """A part of a record, its numbers with their units."""
    units = {name: _in_sentence(known.unit, loss_unit) for name, known in meanings(type(data)).items()}
    return {
        name: _number(name, value, units.get(name, "")) if is_real(value) else value
        for name, value in data.to_json().items()
    }


def _in_sentence(unit: str, loss_unit: str) -> str:
    """A unit as it stands behind a number."""
    return {"1": "", "loss": loss_unit}.get(unit, unit)


def _lines(values: Mapping[str, object]) -> list[str]:
    """A line for each value that is known."""
    words = {True: "yes", False: "no"}
    shown = {name: words[value] if isinstance(value, bool) else value for name, value in values.items()}
    return [f"{name}: {value}" for name, value in shown.items() if value is not None]


def _units(folder: CellFolder, record: Record) -> dict[str, str]:
    """Number of a record -> its unit in a sentence; the scores of the task first."""
    units = {name: metric.short_unit for name, metric in task_scores(_task(folder, record)).items()}
    units |= {name: known.unit for name, known in meanings(type(record)).items()}
    return {name: _in_sentence(unit, units["loss"]) for name, unit in units.items() if unit != "yes or no"}


def _task(folder: CellFolder, record: Record) -> str | None:
    """Name of the task of a cell, or of a compress cell's checkpoint; None where that is no cell of the study."""
    if isinstance(record, TrainRecord):
        return folder.cell().as_train.task.name
    try:
        return Study(folder.path.parents[1]).folder("train", record.parent).cell().as_train.task.name
    except UserError:
        return None


def _number(name: str, value: float, unit: str) -> str:
    """A number of a record with its unit, as figures and tables write it."""
    if name in SCALES and name != "parameters":
        return SCALES[name].write(value)
    if unit in _WRITERS and name != "step_seconds":
        return _WRITERS[unit](value)
    text = f"{value:,}" if isinstance(value, int) else significant(value, digits=5)
    return f"{text} {unit}".rstrip()
