"""The results of a cell: its record and its curve, each compared with what was written before it is read.

The record keeps the SHA-256 of every other result and a seal of its own. Nothing is read for a result without being
compared with them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from trainlarge.config.group import Plain
from trainlarge.config.plain import from_plain
from trainlarge.config.schema import CONFIGS
from trainlarge.config.task import tasks
from trainlarge.config.typed_json import JsonTypeError
from trainlarge.errors import UserError
from trainlarge.sweep.cell import SCHEMA_VERSIONS, Cell
from trainlarge.sweep.files import flush, read_bytes, rows_of, write_text
from trainlarge.sweep.long_curve import LONG_BYTES, read_thinned
from trainlarge.sweep.proof import FILES, DamagedFileError, damage, digests, result_digests
from trainlarge.sweep.records import RECORD_SCHEMAS, RECORDS, CompressRecord, Record, TrainRecord
from trainlarge.sweep.sealed import read_sealed, write_sealed
from trainlarge.sweep.secrets import without_secrets

CONFIG, RECORD, METRICS = "config.yaml", "record.json", "metrics.jsonl"
"""Files of a cell: its frozen configuration, its record, its curve."""
WEIGHTS = "checkpoint/model.safetensors"
"""The file of a train cell that other cells start from."""
_PARTS = (*TrainRecord.groups, "config")
"""Keys of every record that hold keys themselves."""
WeightsOf = Callable[[str], str | None]
"""Id of a train cell -> SHA-256 of its weights."""
_NUMBERS = frozenset({int, float, type(None)})


@dataclass(frozen=True)
class CellResults:
    """The results in the folder of one cell."""

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
        """How far compression, or training from a checkpoint, moved each matrix: name -> mean, spread, squares."""
        return self.path / "weight_errors.json"

    @property
    def document_losses(self) -> Path:
        """Losses of the evaluation summed over each document."""
        return self.path / "document_losses.json"

    @property
    def steps(self) -> Path:
        """How many steps the budget in seconds of a train cell became."""
        return self.path / "steps.json"

    @property
    def log(self) -> Path:
        """Everything that the cell's process printed."""
        return self.path / "log.txt"

    @property
    def config_path(self) -> Path:
        """Path of ``config.yaml``."""
        return self.path / CONFIG

    @property
    def record_path(self) -> Path:
        """Path of ``record.json``."""
        return self.path / RECORD

    def record(self) -> Record:
        """The one-row result.

        Raises:
            DamagedFileError: when ``record.json`` is not there or not as it was written.
            UserError: when another version wrote it.
        """
        try:
            return RECORDS[self.stage].from_json(self.record_data())
        except JsonTypeError as error:
            raise self._damaged({RECORD: "damaged"}) from error

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

    def record_data(self, with_types: bool = False) -> dict[str, Plain]:
        """``record`` as plain data, whose values are not checked: for thousands of cells at once.

        Args:
            with_types: check them nevertheless; without a seal, which older versions did not write, they always are.

        Raises:
            DamagedFileError: when ``record.json`` is not there or not as it was written.
            UserError: when another version wrote it.
        """
        try:
            record = read_sealed(f"{self.location}/{RECORD}", check_old=self._check_types)
            if with_types:
                self._check_types(record)
        except (OSError, ValueError) as error:
            wrong = "gone" if isinstance(error, FileNotFoundError) else "damaged"
            raise self._damaged({RECORD: wrong}) from error
        _, stage, cell_id = self.location.rsplit("/", 2)
        if record.get("cell") != cell_id:
            raise self._damaged({RECORD: "damaged"})
        known = RECORD_SCHEMAS[stage]
        schema = record.get("schema", known)
        if schema != known:
            allowed = f"schema {known}; another version of trainlarge wrote this record and can read it"
            raise UserError(str(self.record_path), f"schema {schema}", allowed)
        for name in _PARTS:
            if type(record.get(name)) is not dict:
                raise self._damaged({RECORD: "damaged"})
        return record

    def _check_types(self, record: dict[str, Plain]) -> None:
        """Raise ValueError where a value is none of a record of this version; those of others are let through."""
        if record.get("schema", RECORD_SCHEMAS[self.stage]) == RECORD_SCHEMAS[self.stage]:
            read = RECORDS[self.stage].from_json(record)
            if not _scores().isdisjoint(read.more):
                raise ValueError("a score is no number")
            cell = Cell(self.stage, from_plain(CONFIGS[self.stage], record.get("config")))
            if self.id not in map(cell.id_by_schema, range(SCHEMA_VERSIONS[self.stage] + 1)):
                raise ValueError("the configuration of another cell")

    def weights_digest(self) -> str | None:
        """SHA-256 of the weights of a train cell, as its record has it; None in a record of an older version.

        Raises:
            UserError: as ``record_data``.
        """
        digest = digests(self.record_data()).get(WEIGHTS)
        return digest if isinstance(digest, str) else None

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

    def damaged_result(self, weights_of: WeightsOf = lambda _: None) -> DamagedFileError | None:
        """What is wrong with the record or the curve of a done cell. Other files are compared when they are opened.

        Args:
            weights_of: SHA-256 of the weights of a train cell as they are now; None where that is not known. A cell
                that started from others is no result of its configuration any more.
        """
        try:
            record = self.record_data()
            self._curve(record)
            self._check_start(record, weights_of)
        except DamagedFileError as error:
            return error
        except UserError:
            # Of another version: whole, but not for us to read.
            return None
        return None

    def _check_start(self, record: Mapping[str, Plain], weights_of: WeightsOf) -> None:
        """Raise DamagedFileError where the weights that the cell started from are not those of its checkpoint now."""
        started_from, config = record.get("checkpoint_weights"), record["config"]
        if started_from is None or not isinstance(config, dict):
            return
        if (weights_of(str(config.get("checkpoint"))) or started_from) != started_from:
            raise self._damaged({RECORD: "of a checkpoint that was trained again since"})

    def write_record(self, record: Record) -> None:
        """Replace ``record.json``, with the digests of all results that are in the folder now."""
        self.write_record_data(record.to_json())

    def write_record_data(self, data: Mapping[str, Plain]) -> None:
        """As ``write_record``, for a record as plain data. Secrets of its configuration are left out."""
        if self.config_path.exists():
            flush(self.config_path)
        write_sealed(self.record_path, {**without_secrets(data), FILES: result_digests(self.path)})

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
            rows = rows_of(self._curve(record))
            return _checked_rows(rows, record)
        except ValueError as error:
            raise error if isinstance(error, DamagedFileError) else self._damaged({METRICS: "damaged"}) from error

    def thinned_metrics(self, record: Mapping[str, Plain]) -> list[dict[str, Plain]]:
        """As ``metrics``, but of a file above 4 MB at most 5,000 of its rows (``trainlarge.sweep.long_curve``)."""
        path = Path(f"{self.location}/{METRICS}")
        try:
            if path.stat().st_size <= LONG_BYTES:
                return self.metrics(record)
            rows, digest = read_thinned(path)
            rows = _checked_rows(rows, record)
        except FileNotFoundError:
            return self.metrics(record)
        except ValueError as error:
            raise error if isinstance(error, DamagedFileError) else self._damaged({METRICS: "damaged"}) from error
        if digest != digests(record).get(METRICS, digest):
            raise self._damaged({METRICS: "damaged"})
        return rows

    def _curve(self, record: Mapping[str, Plain]) -> bytes:
        """Content of ``metrics.jsonl``, compared with the digest that ``record`` has of it."""
        digest = digests(record).get(METRICS)
        try:
            content = read_bytes(f"{self.location}/{METRICS}")
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


def _checked_rows(rows: list[dict[str, Plain]], record: Mapping[str, Plain]) -> list[dict[str, Plain]]:
    """The rows of a curve. Raises ValueError where no digest proves them and they hold something else than numbers."""
    if METRICS not in digests(record):
        for row in rows:
            if not all(type(value) in _NUMBERS or name == "part" for name, value in row.items()):
                raise ValueError("a row holds something else than numbers")
    return rows


@cache
def _scores() -> frozenset[str]:
    """The names of the metrics of all tasks."""
    return frozenset(name for task in tasks().values() for name in task.metrics)
