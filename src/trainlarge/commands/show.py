"""``trainlarge show``: all that is known about one cell, as text for the terminal."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from trainlarge.commands.call import Call
from trainlarge.commands.rerun import rerun_command
from trainlarge.errors import UserError
from trainlarge.results.scores import task_scores
from trainlarge.results.units import AXES, significant
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.proof import FILES, DamagedFileError, damage, digests
from trainlarge.sweep.records import RECORDS, meanings
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.store import CellFolder, Study, studies_root

LOG_LINES = 20


def main(call: Call) -> int:
    """Print a cell."""
    options = parser().parse_args(call.arguments)
    print(show_cell(options.cell, options.study))
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = argparse.ArgumentParser(prog="trainlarge show", description=__doc__)
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
    sections = {
        _headline(folder, cell): [f"folder: {folder.path}"],
        "configuration": yaml.safe_dump(cell.identity["config"], sort_keys=False, allow_unicode=True).splitlines(),
        "record": _record(folder),
        f"log (last {LOG_LINES} lines)": _log_tail(folder.log),
        "run it again": [rerun_command(cell, redo=folder.is_done())],
    }
    return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections.items())


def find_cell(text: str, study: str | None = None) -> CellFolder:
    """The one cell whose id starts with ``text``, in one study or in all.

    Raises:
        UserError: when there is none, or more than one.
    """
    if study is not None:
        return Study.named(study).find(text)
    root = studies_root()
    studies = [Study(path) for path in sorted(root.glob("[!.]*")) if path.is_dir()]
    found = [
        folder for each in studies for stage in STAGES for folder in each.folders(stage) if folder.id.startswith(text)
    ]
    if len(found) != 1:
        where = ", ".join(dict.fromkeys(f"{folder.id} in {folder.path.parents[1].name}" for folder in found[:5]))
        raise UserError(
            "cell",
            text,
            f"the start of one cell id only; it fits {where}" if found else f"a cell id of a study in {root}",
        )
    return found[0]


def _headline(folder: CellFolder, cell: Cell) -> str:
    status = folder.status()
    retries = f", retries: {status.retries}" if status.retries else ""
    attempts = f" (attempts: {status.attempts}{retries})" if status.attempts else ""
    error = f"\n  error: {status.error}" if status.error else ""
    return f"{cell.stage} cell {cell.id} of study {folder.path.parents[1].name}: {status.state}{attempts}{error}"


def _record(folder: CellFolder) -> list[str]:
    if not folder.is_done():
        return ["none: the cell is not done"]
    try:
        record: dict[str, Any] = folder.record_data()
    except DamagedFileError as error:
        return [str(error)]
    units = _units(folder, record)
    numbers = [f"{name}: {_number(name, record[name], units[name])}" for name in units if _is_number(record.get(name))]
    return [
        *_told(record, ("parent", "description")),
        *numbers,
        *_told(record["data"], record["data"]),
        *_environment(record["environment"]),
        *_provenance(record["provenance"]),
        *_files(folder, record),
    ]


def _files(folder: CellFolder, record: dict[str, Any]) -> list[str]:
    """Whether the files of the cell are what its record says."""
    if FILES not in record:
        return ["files: no digests, written by an older version"]
    wrong = damage(folder.path, digests(record))
    lines = [f"{name}: {what}; to make it again: {folder.redo_command}" for name, what in wrong.items()]
    return [f"files: {len(record[FILES]) - len(wrong)} of {len(record[FILES])} as they were written", *lines]


def _told(values: dict[str, Any], names: Any) -> list[str]:
    return [f"{name}: {values[name]}" for name in names if name in values]


def _environment(environment: dict[str, Any]) -> list[str]:
    software = ", ".join(f"{name} {version}" for name, version in environment["software"].items())
    return [*_told(environment, [name for name in environment if name != "software"]), f"software: {software}"]


def _provenance(provenance: dict[str, Any]) -> list[str]:
    times = {
        name: datetime.fromtimestamp(provenance[name]).astimezone().isoformat(timespec="seconds")
        for name in ("started", "ended")
    }
    return [
        *_told(provenance, ("commit", "dirty", "host")),
        *_told(times, times),
        f"study's command: {provenance['command']}",
    ]


def _units(folder: CellFolder, record: dict[str, Any]) -> dict[str, str]:
    """Number of a record -> its unit in a sentence; the scores of the task first."""
    units = {name: metric.short_unit for name, metric in task_scores(_task(folder, record)).items()}
    units |= {name: known.unit for name, known in meanings(RECORDS[folder.stage]).items()}
    plain = {"1": "", "loss": units["loss"]}
    return {name: plain.get(unit, unit) for name, unit in units.items()}


def _task(folder: CellFolder, record: dict[str, Any]) -> str | None:
    """Name of the task of a cell, or of a compress cell's checkpoint; None where that is no cell of the study."""
    if folder.stage == "train":
        return str(record["config"]["task"]["name"])
    try:
        parent = Study(folder.path.parents[1]).folder("train", record["parent"])
        return _task(parent, parent.record_data())
    except UserError:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(name: str, value: float, unit: str) -> str:
    if name in AXES and name != "parameters":
        return AXES[name].write(value)
    text = f"{value:,}" if isinstance(value, int) else significant(value, digits=5)
    return f"{text} {unit}".rstrip()


def _log_tail(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return lines[-LOG_LINES:] or ["empty"]
