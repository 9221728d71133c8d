"""A cell: one frozen configuration with one identity."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainlarge.config.plain import identity_of
from trainlarge.config.schema import CompressConfig, StageConfig, TrainConfig
from trainlarge.errors import UserError

ID_LENGTH = 12
ID_PATTERN = re.compile(r"[0-9a-f]{12}")
SCHEMA_VERSIONS = {"train": 1, "compress": 1}
"""Raised when the meaning of a stage's configuration changes, so that old cells are not taken for new ones."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One point of a sweep.

    Two cells are equal when their ids are: the same science, whatever the study, the launcher or the machine.
    """

    stage: str
    """``train`` or ``compress``."""
    config: StageConfig
    """The full resolved configuration."""

    @property
    def as_train(self) -> TrainConfig:
        """The configuration of a train cell. Raises TypeError for a cell of another stage."""
        if not isinstance(self.config, TrainConfig):
            raise TypeError(f"{self.stage} cell {self.id} is no train cell")
        return self.config

    @property
    def as_compress(self) -> CompressConfig:
        """The configuration of a compress cell. Raises TypeError for a cell of another stage."""
        if not isinstance(self.config, CompressConfig):
            raise TypeError(f"{self.stage} cell {self.id} is no compress cell")
        return self.config

    @cached_property
    def id(self) -> str:
        """First 12 hex digits of SHA-256 over the canonical JSON of what identifies the cell."""
        return self.id_by_schema(SCHEMA_VERSIONS[self.stage])

    def id_by_schema(self, version: int) -> str:
        """The id that this configuration has, or had, by one version of its stage's schema."""
        return hashlib.sha256(canonical_json(self._identity(version)).encode()).hexdigest()[:ID_LENGTH]

    @property
    def identity(self) -> dict[str, Any]:
        """What the id is made from: the configuration without the groups that cannot change a result."""
        return self._identity(SCHEMA_VERSIONS[self.stage])

    def _identity(self, version: int) -> dict[str, Any]:
        return {"schema": version, "stage": self.stage, "config": identity_of(self.config)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, the same text for equal data.

    Raises:
        TypeError: for anything that is not plain data (dict with text keys, list, text, int, finite float, bool, None).
    """
    if not _is_plain(value):
        _refuse_foreign(value, "configuration")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def check_cell_id(text: str) -> str:
    """Return ``text`` if it looks like a cell id.

    Raises:
        UserError: when it does not.
    """
    if not ID_PATTERN.fullmatch(text):
        raise UserError("cell", text, f"a cell id: {ID_LENGTH} hex digits")
    return text


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and _is_plain(item) for key, item in value.items())
    if kind is list:
        return all(map(_is_plain, value))
    return math.isfinite(value) if kind is float else kind in _PLAIN_TYPES


def _refuse_foreign(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"{where}: key {key!r} is not text")
            _refuse_foreign(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_foreign(item, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{where}: {value!r} is not a finite number")
    elif value is not None and type(value) not in (str, int, float, bool):
        raise TypeError(f"{where}: {type(value).__name__} is not plain data")


_PLAIN_TYPES = frozenset({str, int, bool, type(None)})
