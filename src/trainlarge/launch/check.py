"""The launcher of a command, after checks of what applies to the command as a whole and before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trainlarge.config.data import DOCUMENTS
from trainlarge.config.group import Group
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.errors import UserError
from trainlarge.launch.launcher import Launcher
from trainlarge.launch.registry import launcher_class
from trainlarge.machine.devices import check_device
from trainlarge.sweep.causes import Causes
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.stages import stage_named
from trainlarge.sweep.store import Study

OF_THE_COMMAND = ("study", "launcher", "tracking", "workers", "redo")
"""Keys that hold for a command as a whole."""


def launcher_for(configs: Sequence[StageConfig]) -> Launcher:
    """The launcher of a command that runs ``configs``, one for each cell; nothing is asked or written yet.

    Raises:
        UserError: for cells that disagree about what holds for the command as a whole, a split that older cells of the
            study do not have, or a value that the launcher cannot take.
    """
    for key in OF_THE_COMMAND:
        _check_same(key, [getattr(config, key) for config in configs])
    _check_split(configs)
    config = configs[0].launcher
    return launcher_class(config.name)(config, configs)


def check_cells(
    launcher: Launcher, study: Study, stage: str, cells: Sequence[Cell], planned: Planned = NOTHING_PLANNED
) -> None:
    """Refuse cells that are known to fail: what they compute with, their data, recipes that do not fit.

    It takes seconds at most, and finds nothing out that only a job could. Where jobs run elsewhere, their devices are
    not known here.

    Args:
        cells: those that are to run.
        planned: train cells whose checkpoints will be there.

    Raises:
        UserError: one line per cause, with the number of cells.
    """
    causes = Causes(len(cells))
    if launcher.runs_here:
        compiles = stage == "train"
        kinds = Counter((cell.config.impl.device, cell.config.impl.compile if compiles else "none") for cell in cells)
        for (device, compiling), count in kinds.items():
            with causes.of(count):
                check_device(device, compiling)
    stage_named(stage).look(study, cells, causes, planned)
    causes.raise_any()


def _check_split(configs: Sequence[StageConfig]) -> None:
    """Refuse to fill in the newest split in a study of before there were several.

    All of it would be trained again, and its losses could not be compared.
    """
    open_splits = (
        config.data
        for config in configs
        if isinstance(config, TrainConfig) and config.data.split is None and not config.data.validation_files
    )
    data = next(open_splits, None)
    study = Study.named(configs[0].study)
    before = next(study.folders("train"), None)
    if data is None or before is None:
        return
    try:
        kept = before.cell().as_train.data
    except UserError:
        return
    if kept.name == data.name and kept.split == DOCUMENTS and not kept.validation_files:
        allowed = f"{DOCUMENTS}, by which the cells of study {study.name} were split before this key; or another study"
        raise UserError("data.split", data.split, allowed)


def _check_same(key: str, values: Sequence[object]) -> None:
    first = values[0]
    other = next((value for value in values if value != first), first)
    if isinstance(first, Group):
        for name in first.plain:
            _check_same(f"{key}.{name}", [getattr(first, name), getattr(other, name)])
    elif other != first:
        raise UserError(key, f"{first},{other}", "one value: it holds for the whole command")
