"""A cell: one frozen configuration with one identity."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainlarge.config.schema import NOT_IDENTITY
from trainlarge.errors import UserError

ID_LENGTH = 12
ID_PATTERN = re.compile(r"[0-9a-f]{12}")
SCHEMA_VERSIONS = {"train": 1, "compress": 1}
"""Raised when the meaning of a stage's configuration changes, so that old cells are not taken for new ones."""
LOCATIONS = {"data": frozenset({"files", "validation_files"})}
"""Paths: ``data.fingerprint`` stands for the content that they lead to."""
STAND_INS = {"checkpoint": "checkpoint_digest"}
"""Keys that may be paths, and the key that stands for the content they lead to, where it is set."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One point of a sweep.

    Two cells are equal when their ids are: the same science, whatever the study, the launcher or the machine.
    """

    stage: str
    """``train`` or ``compress``."""
    config: dict[str, Any]
    """The full resolved configuration: plain JSON data, never changed."""

    @cached_property
    def id(self) -> str:
        """First 12 hex digits of SHA-256 over the canonical JSON of what identifies the cell."""
        return hashlib.sha256(canonical_json(self.identity).encode()).hexdigest()[:ID_LENGTH]

    @property
    def identity(self) -> dict[str, Any]:
        """What the id is made from: the configuration without the groups that cannot change a result."""
        hidden = {key for key, stand_in in STAND_INS.items() if self.config.get(stand_in)} | NOT_IDENTITY
        science = {key: _without_locations(key, value) for key, value in self.config.items() if key not in hidden}
        return {"schema": SCHEMA_VERSIONS[self.stage], "stage": self.stage, "config": science}

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


def _without_locations(group: str, value: Any) -> Any:
    hidden = LOCATIONS.get(group)
    return {key: item for key, item in value.items() if key not in hidden} if hidden else value
