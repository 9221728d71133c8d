"""A cell: one frozen configuration with one identity."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property

from trainlarge.config.group import Plain
from trainlarge.config.plain import identity_json, identity_of
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
        # As `canonical_json` writes it, from what the cells of a sweep share.
        whole = f'{{"config":{identity_json(self.config)},"schema":{version},"stage":{json.dumps(self.stage)}}}'
        return hashlib.sha256(whole.encode()).hexdigest()[:ID_LENGTH]

    @property
    def identity(self) -> dict[str, Plain]:
        """What the id is made from: the configuration without the groups that cannot change a result."""
        return {"schema": SCHEMA_VERSIONS[self.stage], "stage": self.stage, "config": identity_of(self.config)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


def check_cell_id(text: str) -> str:
    """Return ``text`` if it looks like a cell id.

    Raises:
        UserError: when it does not.
    """
    if not ID_PATTERN.fullmatch(text):
        raise UserError("cell", text, f"a cell id: {ID_LENGTH} hex digits")
    return text
