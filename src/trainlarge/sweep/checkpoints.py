"""Checkpoints that cells start from: a train cell of the study by its id, or a Hugging Face folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from trainlarge.config.group import Plain
from trainlarge.config.plain import to_plain
from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError, shown
from trainlarge.sweep.cell import ID_PATTERN
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.store import CellFolder, Study

_OF_SHAPE = re.compile(r"arch(\.\w+)?|data\.vocab_size")
"""Keys that a checkpoint decides."""


def is_folder(text: str) -> bool:
    """Whether ``checkpoint`` names a folder: with a slash, or one that is there, unless it looks like a cell id."""
    return not ID_PATTERN.fullmatch(text) and ("/" in text or Path(text).is_dir())


def train_cell(study: Study, checkpoint: str, planned: Planned = NOTHING_PLANNED) -> tuple[CellFolder, TrainConfig]:
    """Folder and configuration of the train cell that ``checkpoint`` names.

    Args:
        study: the study of both cells.
        checkpoint: its id.
        planned: train cells that will be finished.

    Raises:
        UserError: it is no finished train cell of the study.
    """
    if checkpoint in planned and planned[checkpoint].config.study == study.name:
        return study.folder("train", checkpoint), planned[checkpoint].config
    return _finished(study, checkpoint)


def check_weights(folder: CellFolder, weights: Path) -> None:
    """Refuse a finished train cell that nothing can start from.

    Args:
        folder: of the train cell.
        weights: the file that its checkpoint must have.

    Raises:
        UserError: the file is gone, or the cell diverged.
    """
    if not weights.is_file():
        allowed = f"a train cell whose weights are still there; to make them again: {folder.redo_command}"
        raise UserError("checkpoint", folder.id, allowed)
    if folder.train_record().diverged:
        raise UserError("checkpoint", folder.id, "a train cell that did not diverge")


def check_shape(stage: str, composed: Mapping[str, Plain], given: Iterable[str], planned: Planned) -> None:
    """Refuse a key of the shape or the vocabulary that is given, and is not that of the checkpoint.

    The checkpoint's takes its place. What is given would be lost where it is the default: once the configuration is
    made, that cannot be told from a key that is not given.

    Args:
        stage: ``train`` or ``compress``.
        composed: a configuration, with one checkpoint.
        given: keys that a block or the command line sets.
        planned: train cells whose checkpoints will be there.

    Raises:
        UserError: naming the key; or the checkpoint is no finished train cell.
    """
    checkpoint = composed.get("checkpoint")
    if stage != "train" or not isinstance(checkpoint, str) or is_folder(checkpoint):
        return
    keys = [key for key in given if _OF_SHAPE.fullmatch(key)]
    if not keys:
        return
    trained = to_plain(train_cell(Study.named(str(composed["study"])), checkpoint, planned)[1])
    for key in keys:
        path = ["arch", "name"] if key == "arch" else key.split(".")
        value, taken = _at(composed, path), _at(trained, path)
        if value is not None and value != taken:
            allowed = f"{shown(taken)}, that of the checkpoint: its shape is taken over"
            raise UserError(key, value, allowed)


def _at(config: Mapping[str, Plain], path: Sequence[str]) -> Plain:
    group = config.get(path[0])
    return group.get(path[1]) if isinstance(group, dict) else None


@lru_cache(maxsize=4096)
def _finished(study: Study, checkpoint: str) -> tuple[CellFolder, TrainConfig]:
    """Kept only when it is there: an error is looked at again."""
    where = f"study {study.name} in {study.path.parent}"
    allowed = f"the id of a finished train cell of {where}, 'every' in a sweep, or a Hugging Face folder"
    folder = study.folder("train", checkpoint) if ID_PATTERN.fullmatch(checkpoint) else None
    if folder is None or not folder.is_done():
        if folder is not None and folder.says_done():
            # Its record is gone: raises the error that names the file and the command that makes it again.
            folder.record_data()
        error = None if folder is None else folder.status().error
        raise UserError("checkpoint", checkpoint, f"{allowed} (it ended with: {error})" if error else allowed)
    return folder, folder.cell().as_train
