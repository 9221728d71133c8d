"""The study folder, which is the truth: ``<root>/<study>/<stage>/<cell id>/`` with plain files in each.

Order of writes of a cell: ``config.yaml`` before it is queued, weights and ``metrics.jsonl`` before ``record.json``,
``record.json`` before the status says done. Every write replaces the file whole. What a record rests on is flushed to
the disk before the record is; a queued or running cell is not, since the next command freezes and claims it again.

The record keeps the SHA-256 of every other result and a seal of its own. Nothing is read for a result without being
compared with them. The record, not the status, is what proves a cell done: where ``status.json`` is damaged or gone, a
whole record stands for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from trainlarge.config.group import Plain
from trainlarge.config.plain import from_plain, to_plain
from trainlarge.config.schema import CONFIGS
from trainlarge.config.typed_json import JsonTypeError
from trainlarge.errors import UserError
from trainlarge.sweep.cell import ID_PATTERN, SCHEMA_VERSIONS, Cell, check_cell_id
from trainlarge.sweep.config_yaml import from_yaml, to_yaml
from trainlarge.sweep.files import flush, read_bytes, read_json, rows_of, write_json, write_text
from trainlarge.sweep.lease import is_held
from trainlarge.sweep.proof import FILES, DamagedFileError, damage, digests, result_digests
from trainlarge.sweep.records import RECORD_SCHEMAS, RECORDS, CompressRecord, Record, TrainRecord
from trainlarge.sweep.sealed import read_sealed, write_sealed
from trainlarge.sweep.status import ENDED, State, Status

METRICS = "metrics.jsonl"
"""File of a cell with its curve."""
_PARTS = (*TrainRecord.groups, "config")
"""Keys of every record that hold keys themselves."""
_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def studies_root() -> Path:
    """``$TRAINLARGE_STUDIES``, or ``studies`` in the working directory."""
    return Path(os.environ.get("TRAINLARGE_STUDIES") or "studies").resolve()


@dataclass(frozen=True)
class Study:
    """One question and all its results."""

    path: Path
    """The folder of the study."""

    @classmethod
    def named(cls, name: str, root: Path | None = None) -> Study:
        """The study ``name`` below ``root`` (default: ``studies_root()``); the folder need not exist.

        Raises:
            UserError: for a name that is not a plain folder name.
        """
        if not _STUDY_NAME.fullmatch(name):
            raise UserError("study", name, "a folder name: letters, digits, '_', '-' and '.', no slash")
        return cls((root or studies_root()) / name)

    @property
    def name(self) -> str:
        """Name of the study: that of its folder."""
        return self.path.name

    @property
    def data_root(self) -> Path:
        """Where prepared data of all studies in the same folder is kept."""
        return self.path.parent / ".data"

    def folder(self, stage: str, cell_id: str) -> CellFolder:
        """The folder of one cell, whether it exists or not.

        Raises:
            UserError: for a name that is no cell id, which could lead out of the study.
        """
        return CellFolder(f"{self.path}/{stage}/{check_cell_id(cell_id)}")

    def folders(self, stage: str) -> Iterator[CellFolder]:
        """Folders of all frozen cells of a stage, in the order of their ids."""
        stage_path = self.path / stage
        names = sorted(entry.name for entry in os.scandir(stage_path)) if stage_path.is_dir() else []
        return (CellFolder(f"{stage_path}/{name}") for name in names if ID_PATTERN.fullmatch(name))

    def find(self, text: str) -> CellFolder:
        """The one cell of any stage whose id starts with ``text``.

        Raises:
            UserError: when there is none, or more than one.
        """
        found = [
            folder for stage in ("train", "compress") for folder in self.folders(stage) if folder.id.startswith(text)
        ]
        if len(found) != 1:
            what = (
                "the start of one cell id only"
                if found
                else f"a cell id of study {self.name} (trainlarge status {self.name})"
            )
            raise UserError("cell", text, what)
        return found[0]


@dataclass(frozen=True)
class CellFolder:
    """The files of one cell."""

    location: str
    """``<study>/<stage>/<cell id>``, as text: a study has ten thousand cells, and making a ``Path`` takes longer than
    reading most of their files."""

    @cached_property
    def path(self) -> Path:
        """``location`` as a path."""
        return Path(self.location)

    @property
    def id(self) -> str:
        """Name of the folder: the first 12 hex digits of the hash of the configuration."""
        return self.location.rsplit("/", 1)[-1]

    @property
    def stage(self) -> str:
        """Name of the folder above: ``train`` or ``compress``."""
        return self.location.rsplit("/", 2)[-2]

    @property
    def checkpoint(self) -> Path:
        """Folder of the model in Hugging Face layout."""
        return self.path / "checkpoint"

    @property
    def packed(self) -> Path:
        """The packed file of a compressed model."""
        return self.path / "packed.safetensors"

    @property
    def weight_errors(self) -> Path:
        """How far compression moved each matrix: name -> mean, spread and squares of the change."""
        return self.path / "weight_errors.json"

    @property
    def document_losses(self) -> Path:
        """Losses of the evaluation summed over each document."""
        return self.path / "document_losses.json"

    @property
    def log(self) -> Path:
        """Everything that the cell's process printed."""
        return self.path / "log.txt"

    def freeze(self, cell: Cell) -> None:
        """Write the configuration, which queues the cell.

        A cell that was frozen before only takes over what cannot change its result (``impl``, ``tracking``, ...), and
        not even that once it is done or while it runs.
        """
        text = f"# {cell.stage} cell {cell.id}: frozen, never edited\n{to_yaml(to_plain(cell.config))}"
        frozen = self._frozen_text()
        if frozen is None:
            self.path.mkdir(parents=True, exist_ok=True)
        if frozen is None or (frozen != text and not self.is_done() and not is_held(self.path)):
            write_text(self._config_path, text, durable=False)

    def cell(self) -> Cell:
        """The frozen cell; where its configuration is damaged, as the record has it.

        Raises:
            UserError: when the configuration is not there, cannot be read, or is not the one that the id names.
        """
        try:
            return self._frozen_cell()
        except UserError as error:
            if recorded := self._recorded_cell():
                return recorded
            raise error

    def _frozen_cell(self) -> Cell:
        try:
            config = from_yaml(self._config_path.read_text(encoding="utf-8"))
            cell = self._cell_of(config)
            is_same = cell.id == self.id
        except (OSError, ValueError, yaml.YAMLError, TypeError, AttributeError, KeyError) as error:
            raise UserError(
                str(self._config_path), type(error).__name__, "the frozen configuration of a cell"
            ) from error
        if not is_same:
            raise self._not_this_cell(cell)
        return cell

    def _recorded_cell(self) -> Cell | None:
        """The cell that a complete record is about, if it is this one."""
        try:
            cell = self._cell_of(self.record_data()["config"])
            return cell if cell.id == self.id else None
        except (UserError, TypeError, AttributeError, KeyError):
            return None

    def _cell_of(self, config: Plain) -> Cell:
        return Cell(self.stage, from_plain(CONFIGS[self.stage], config))

    def _not_this_cell(self, cell: Cell) -> UserError:
        path, current = str(self._config_path), SCHEMA_VERSIONS[cell.stage]
        for version in range(current):
            if cell.id_by_schema(version) == self.id:
                return UserError(path, f"schema {version}", f"schema {current}: an older trainlarge made this cell")
        allowed = f"the configuration of cell {self.id}, unchanged since it was frozen"
        return UserError(path, f"id {cell.id}", allowed)

    def status(self) -> Status:
        """The status as written; where it is damaged or gone, what the other files say.

        It is ``done`` where the record is whole; else damaged it is ``failed``, and gone ``queued`` if the cell is
        frozen, or ``missing``.

        A cell gets the file with its first attempt: making files is most of what freezing ten thousand cells takes.
        """
        try:
            return Status.from_json(read_json(self._file("status.json")))
        except FileNotFoundError:
            rest = Status(State.QUEUED if os.path.exists(self._file("config.yaml")) else State.MISSING)  # noqa: PTH110
        except ValueError:
            rest = Status(State.FAILED, error=f"{self._status_path} is damaged")
        return Status(State.DONE) if self._has_whole_record() else rest

    def is_done(self) -> bool:
        """Whether the status says so and the record is there."""
        # The record first: most cells that are asked have none, and that takes less than to miss a status.
        return os.path.exists(self._file("record.json")) and self.says_done()  # noqa: PTH110

    def says_done(self) -> bool:
        """Whether the status says so, even without a record; where it is damaged, whether the record is whole."""
        try:
            status = read_json(self._file("status.json"))
            if isinstance(status, dict) and status.get("state") == State.DONE:
                return True
        except (OSError, ValueError):
            pass
        # Without a record, no other status stands for a done cell.
        return os.path.exists(self._file("record.json")) and self.status().state is State.DONE  # noqa: PTH110

    def _has_whole_record(self) -> bool:
        try:
            # Most cells that are asked have none, and that takes less than to miss it when it is read.
            return os.path.exists(self._file("record.json")) and bool(self.record_data())  # noqa: PTH110
        except UserError:
            return False

    def write_status(self, status: Status) -> None:
        """Replace ``status.json``; durable where it says how an attempt ended."""
        write_json(self._status_path, status.to_json(), durable=status.state in ENDED)

    @property
    def record_path(self) -> Path:
        """Path of ``record.json``."""
        return self.path / "record.json"

    def record(self) -> Record:
        """The one-row result.

        Raises:
            DamagedFileError: when ``record.json`` is not there or not as it was written.
            UserError: when another version wrote it.
        """
        try:
            return RECORDS[self.stage].from_json(self.record_data())
        except JsonTypeError as error:
            raise self._damaged({"record.json": "damaged"}) from error

    def train_record(self) -> TrainRecord:
        """``record`` of a train cell. Raises TypeError for a cell of another stage."""
        record = self.record()
        if not isinstance(record, TrainRecord):
            raise TypeError(f"{self.stage} cell {self.id} is no train cell")
        return record

    def compress_record(self) -> CompressRecord:
        """``record`` of a compress cell. Raises TypeError for a cell of another stage."""
        record = self.record()
        if not isinstance(record, CompressRecord):
            raise TypeError(f"{self.stage} cell {self.id} is no compress cell")
        return record

    def record_data(self) -> dict[str, Plain]:
        """``record`` as plain data, whose values are not checked: for thousands of cells at once.

        Raises:
            DamagedFileError: when ``record.json`` is not there or not as it was written.
            UserError: when another version wrote it.
        """
        try:
            record = read_sealed(f"{self.location}/record.json")
        except (OSError, ValueError) as error:
            wrong = "gone" if isinstance(error, FileNotFoundError) else "damaged"
            raise self._damaged({"record.json": wrong}) from error
        _, stage, cell_id = self.location.rsplit("/", 2)
        if record.get("cell") != cell_id:
            raise self._damaged({"record.json": "damaged"})
        known = RECORD_SCHEMAS[stage]
        schema = record.get("schema", known)
        if schema != known:
            allowed = f"schema {known}; another version of trainlarge wrote this record and can read it"
            raise UserError(str(self.record_path), f"schema {schema}", allowed)
        for name in _PARTS:
            if type(record.get(name)) is not dict:
                raise self._damaged({"record.json": "damaged"})
        return record

    def prove(self, below: str = "") -> None:
        """Compare results of the cell with the digests that its record keeps; a record of an older version has none.

        Args:
            below: only files whose path in the folder starts like this.

        Raises:
            DamagedFileError: naming those that differ and the command that makes them again.
        """
        if wrong := damage(self.path, digests(self.record_data()), below):
            raise self._damaged(wrong)

    def _damaged(self, wrong: Mapping[str, str]) -> DamagedFileError:
        """The error for files by their path in the folder, each with what is wrong with it."""
        *others, last = wrong
        key = str(self.path / last) if not others else f"{self.path}: {', '.join(wrong)}"
        allowed = f"what cell {self.id} wrote there; to make it again: {self.redo_command}"
        return DamagedFileError(key, ", ".join(dict.fromkeys(wrong.values())), allowed)

    @property
    def redo_command(self) -> str:
        """The command that makes the cell again."""
        return f"trainlarge redo {self.id} --study {self.path.parents[1].name}"

    def damaged_result(self) -> DamagedFileError | None:
        """What is wrong with the record or the curve of a done cell. Other files are compared when they are opened."""
        try:
            self._curve(self.record_data())
        except DamagedFileError as error:
            return error
        except UserError:
            # Of another version: whole, but not for us to read.
            return None
        return None

    def write_record(self, record: Record) -> None:
        """Replace ``record.json``, with the digests of all results that lie in the folder now."""
        self.write_record_data(record.to_json())

    def write_record_data(self, data: Mapping[str, Plain]) -> None:
        """As ``write_record``, for a record as plain data."""
        if self._config_path.exists():
            flush(self._config_path)
        write_sealed(self.record_path, {**data, FILES: result_digests(self.path)})

    def metrics(self, record: Mapping[str, Plain] | None = None) -> list[dict[str, Plain]]:
        """Rows of the curve, in the order of steps; none where there is no curve.

        Args:
            record: the cell's record as plain data, where the caller has read it.

        Raises:
            DamagedFileError: when they are not those that the record lists.
        """
        if record is None:
            record = self.record_data() if self.record_path.exists() else {}
        try:
            return rows_of(self._curve(record))
        except ValueError as error:
            raise error if isinstance(error, DamagedFileError) else self._damaged({METRICS: "damaged"}) from error

    def _curve(self, record: Mapping[str, Plain]) -> bytes:
        """Content of ``metrics.jsonl``, compared with the digest that ``record`` has of it."""
        digest = digests(record).get(METRICS)
        try:
            content = read_bytes(self._file(METRICS))
        except FileNotFoundError as error:
            if digest is None:
                return b""
            raise self._damaged({METRICS: "gone"}) from error
        if digest and hashlib.sha256(content).hexdigest() != digest:
            raise self._damaged({METRICS: "damaged"})
        return content

    def write_metrics(self, rows: Sequence[Mapping[str, Plain]]) -> None:
        """Replace ``metrics.jsonl``."""
        write_text(self.path / METRICS, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))

    def write_document_losses(self, content: Mapping[str, Plain]) -> None:
        """Replace ``document_losses.json``, on one line: it holds thousands of numbers."""
        write_text(self.document_losses, json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")

    def clear_result(self) -> None:
        """Forget that the cell was done, so that it runs again; its configuration stays frozen."""
        self.write_status(Status(State.QUEUED))
        self.record_path.unlink(missing_ok=True)

    def _frozen_text(self) -> str | None:
        try:
            return read_bytes(self._file("config.yaml")).decode()
        except FileNotFoundError:
            return None

    def _file(self, name: str) -> str:
        return f"{self.location}/{name}"

    @property
    def _config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def _status_path(self) -> Path:
        return self.path / "status.json"


def cell_of_result(path: Path) -> CellFolder | None:
    """The finished cell in whose folder a file is; None for a file elsewhere."""
    folder = CellFolder(str(path.absolute().parent))
    is_cell = folder.stage in RECORD_SCHEMAS and ID_PATTERN.fullmatch(folder.id)
    return folder if is_cell and folder.is_done() else None
