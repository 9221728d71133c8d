"""The parts of a study: cells of one task on one data set, which alone are compared with one another.

A study that pretrains, then finetunes on two data sets, has three parts. Cells that start from a checkpoint and cells
that start from initial weights are two parts as well, since their training is not the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from pathlib import PurePath
from typing import NamedTuple, TypeAlias

from trainlarge.results.nested import Nested

_DATA = ("data.name", "data.hub", "data.files", "data.text_column", "task.label_column", "task.second_text_column")
"""Keys that say which data a task is on. Folders above that of a file may differ between machines."""
_FOLDER_AND_FILE = 2
FROM_CHECKPOINTS, FROM_INITIAL_WEIGHTS = "from checkpoints", "from initial weights"
_Data: TypeAlias = tuple[Hashable, ...]


class _Key(NamedTuple):
    """What the cells of a part have in common."""

    task: str
    data: _Data
    start: str


def part_names(records: Nested, checkpoints: Sequence[str]) -> list[str]:
    """The name of the part of each record of a train cell: ``mlm``, ``classification of sst2``.

    A name says no more than tells the parts of the study apart: the task, then the data, then where training starts.

    Args:
        records: of train cells.
        checkpoints: what each started from; empty for initial weights.
    """
    tasks = records.values("config.task.name")
    columns = [[_plain(value) for value in records.values(f"config.{key}")] for key in _DATA]
    keys = [
        _Key(str(task or ""), data, FROM_CHECKPOINTS if checkpoint else FROM_INITIAL_WEIGHTS)
        for task, data, checkpoint in zip(tasks, zip(*columns, strict=True), checkpoints, strict=True)
    ]
    names = _names(list(dict.fromkeys(keys)))
    return [names[key] for key in keys]


def untrained_part(part: str) -> str:
    """The name of the part on the same task and data that starts from initial weights, of a part from checkpoints."""
    return part.removesuffix(FROM_CHECKPOINTS) + FROM_INITIAL_WEIGHTS


def _plain(value: object) -> Hashable:
    """A value that can be compared; of paths the last folder and the file."""
    if isinstance(value, list):
        return tuple("/".join(PurePath(str(path)).parts[-_FOLDER_AND_FILE:]) for path in value)
    return value if isinstance(value, (str, type(None))) else str(value)


def _names(keys: Sequence[_Key]) -> dict[_Key, str]:
    names: dict[_Key, str] = {}
    for key in keys:
        of_task = [other for other in keys if other.task == key.task]
        data = _data_names(dict.fromkeys(other.data for other in of_task))
        starts = {other.start for other in of_task if other.data == key.data}
        named = f"{key.task} of {data[key.data]}" if len(data) > 1 else key.task
        names[key] = f"{named}, {key.start}" if len(starts) > 1 else named
    return names


def _data_names(data: Iterable[_Data]) -> dict[_Data, str]:
    """The shortest that tells data sets apart: folder of the first file, file, both; else all that is known."""
    data = list(data)
    for name in (_folder, _file, _path, _everything):
        names = {one: name(one) for one in data}
        if len(set(names.values())) == len(names) and all(names.values()):
            break
    return names


def _path(data: _Data) -> str:
    """Folder and name of the first file; the name of the corpus, or of a data set of the hub, where there are none."""
    name, hub, files = data[:3]
    return str(files[0]) if isinstance(files, tuple) and files else str(hub or name or "")


def _folder(data: _Data) -> str:
    return _path(data).rpartition("/")[0] or _file(data)


def _file(data: _Data) -> str:
    return _path(data).rpartition("/")[2].partition(".")[0]


def _everything(data: _Data) -> str:
    return " ".join(str(value) for value in data if value)
