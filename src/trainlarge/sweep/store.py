"""The study folder, which is the truth: ``<root>/<study>/<stage>/<cell id>/`` with plain files in each.

Order of writes of a cell: ``config.yaml`` before it is queued, weights and ``metrics.jsonl`` before ``record.json``,
``record.json`` before the status says done. Every write replaces the file whole. What a record rests on is flushed to
the disk before the record is; a queued or running cell is not, since the next command freezes and claims it again.

The record, not the status, is what proves a cell done: where ``status.json`` is damaged or gone, a whole record stands
for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from trainlarge.config.group import Plain
from trainlarge.config.plain import from_plain, to_plain
from trainlarge.config.schema import CONFIGS
from trainlarge.errors import UnknownChoiceError, UserError
from trainlarge.sweep.cell import ID_PATTERN, SCHEMA_VERSIONS, Cell, check_cell_id
from trainlarge.sweep.cell_results import CONFIG, RECORD, CellResults
from trainlarge.sweep.config_yaml import from_yaml, to_yaml
from trainlarge.sweep.files import make_folder, read_bytes, read_json, refuse_links, remove_file, write_json, write_text
from trainlarge.sweep.lease import is_held
from trainlarge.sweep.records import RECORD_SCHEMAS
from trainlarge.sweep.secrets import text_without_secrets
from trainlarge.sweep.status import ENDED, State, Status

_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def studies_root() -> Path:
    """``$TRAINLARGE_STUDIES``, or ``studies`` in the working directory."""
    return Path(os.environ.get("TRAINLARGE_STUDIES") or "studies").resolve()


WRITTEN_BY_JOBS = ("train", "compress", "trunks", "probes")
"""Folders of a study that jobs write into."""


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
            raise UserError("study", name, "a folder name: at most 100 letters, digits, '_', '-' and '.', no slash")
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
        entries = list(os.scandir(stage_path)) if stage_path.is_dir() else []
        # A file that is called like a cell is none.
        names = sorted(entry.name for entry in entries if ID_PATTERN.fullmatch(entry.name) and entry.is_dir())
        return (CellFolder(f"{stage_path}/{name}") for name in names)

    def find(self, text: str) -> CellFolder:
        """As ``find_cell``, in this study alone."""
        return find_cell(text, [self], f"study {self.name} (trainlarge status {self.name})")


@dataclass(frozen=True)
class CellFolder(CellResults):
    """The files of one cell: its configuration, its status, and its results."""

    def freeze(self, cell: Cell) -> None:
        """Write the configuration, which queues the cell.

        A cell that was frozen before only takes over what cannot change its result (``impl``, ``tracking``, ...), and
        not even that once it is done or while it runs.
        """
        text = f"# {cell.stage} cell {cell.id}: frozen, never edited\n{to_yaml(to_plain(cell.config))}"
        self.refuse_links()
        try:
            frozen: bytes | None = read_bytes(f"{self.location}/{CONFIG}")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            frozen = None
            make_folder(self.path, inside=self.path.parents[1])
        if frozen is None or (frozen != text.encode() and not self.is_done() and not is_held(self.path)):
            write_text(self.config_path, text, durable=False)

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
            config = from_yaml(read_bytes(f"{self.location}/{CONFIG}").decode())
            cell = self._cell_of(config)
            is_same = cell.id == self.id
        except UnknownChoiceError as error:
            known = f"{error.allowed}, or of an installed package that adds it; where the file is damaged, the command"
            allowed = f"{known} that made the cell freezes it again"
            raise UserError(str(self.config_path), f"{error.key}={error.value}", allowed) from error
        # What is no configuration makes each part of it raise its own errors, also RecursionError and OverflowError.
        except Exception as error:
            wrong = " ".join(str(error).split())[:150] if isinstance(error, UserError) else type(error).__name__
            allowed = f"the frozen configuration of a cell ({wrong}); the command that made the cell freezes it again"
            raise UserError(str(self.config_path), "damaged", allowed) from error
        if not is_same:
            raise self._not_this_cell(cell)
        return cell

    def _recorded_cell(self) -> Cell | None:
        """The cell that a complete record is about, if it is this one."""
        try:
            cell = self._cell_of(self.record_data()["config"])
            return cell if cell.id == self.id else None
        except Exception:  # As in ``_frozen_cell``.
            return None

    def _cell_of(self, config: Plain) -> Cell:
        return Cell(self.stage, from_plain(CONFIGS[self.stage], config))

    def _not_this_cell(self, cell: Cell) -> UserError:
        path, current = str(self.config_path), SCHEMA_VERSIONS[cell.stage]
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
            return Status.from_json(read_json(f"{self.location}/status.json"))
        except (FileNotFoundError, NotADirectoryError):
            rest = Status(State.QUEUED if os.path.exists(f"{self.location}/{CONFIG}") else State.MISSING)  # noqa: PTH110
        except (IsADirectoryError, ValueError):
            rest = Status(State.FAILED, error=f"{self._status_path} is damaged")
        return Status(State.DONE) if self._has_whole_record() else rest

    def is_done(self) -> bool:
        """Whether the status says so and the record is there."""
        # The record first: most cells that are asked have none, and that takes less than to miss a status.
        return os.path.exists(f"{self.location}/{RECORD}") and self.says_done()  # noqa: PTH110

    def says_done(self) -> bool:
        """Whether the status says so, even without a record; where it is damaged, whether the record is whole."""
        try:
            status = read_json(f"{self.location}/status.json")
            if isinstance(status, dict) and status.get("state") == State.DONE:
                return True
        except (OSError, ValueError):
            pass
        # Without a record, no other status stands for a done cell.
        return os.path.exists(f"{self.location}/{RECORD}") and self.status().state is State.DONE  # noqa: PTH110

    def _has_whole_record(self) -> bool:
        try:
            # Most cells that are asked have none, and that takes less than to miss it when it is read.
            return os.path.exists(f"{self.location}/{RECORD}") and bool(self.record_data())  # noqa: PTH110
        except UserError:
            return False

    def refuse_links(self) -> None:
        """Raise a UserError where a link leads to the folder: nothing is written through it."""
        refuse_links(self.location, self.location.rsplit("/", 2)[0])

    def write_status(self, status: Status) -> None:
        """Replace ``status.json``, without secrets; durable where it says how an attempt ended."""
        self.refuse_links()
        if status.error:
            status = replace(status, error=text_without_secrets(status.error))
        write_json(self._status_path, status.to_json(), durable=status.state in ENDED)

    def clear_result(self) -> None:
        """Forget that the cell was done, so that it runs again; its configuration stays frozen."""
        if not self.path.is_dir():
            return
        self.write_status(Status(State.QUEUED))
        remove_file(self.record_path)

    @property
    def _status_path(self) -> Path:
        return self.path / "status.json"


def cell_of_result(path: Path) -> CellFolder | None:
    """The finished cell in whose folder a file is; None for a file elsewhere."""
    folder = CellFolder(str(path.absolute().parent))
    is_cell = folder.stage in RECORD_SCHEMAS and ID_PATTERN.fullmatch(folder.id)
    return folder if is_cell and folder.is_done() else None


def find_cell(text: str, studies: Iterable[Study], where: str) -> CellFolder:
    """The one cell of any stage whose id starts with ``text``.

    Args:
        text: the cell's id, or its start.
        studies: where to look.
        where: the same in words.

    Raises:
        UserError: when there is none, or more than one.
    """
    folders = [folder for study in studies for stage in ("train", "compress") for folder in study.folders(stage)]
    fitting = [folder for folder in folders if folder.id.startswith(text)]
    if not fitting:
        raise UserError("cell", text, f"a cell id of {where}")
    if len(fitting) > 1:
        names = ", ".join(dict.fromkeys(f"{folder.id} in {folder.path.parents[1].name}" for folder in fitting[:5]))
        raise UserError("cell", text, f"the start of one cell id only; it fits {names}")
    return fitting[0]
