"""A composed sweep to the configurations of its cells."""

from __future__ import annotations

import logging
from collections.abc import Set

from trainlarge.config.choices import refuse_keys_of_others
from trainlarge.config.group import Plain, check_value
from trainlarge.config.plain import from_plain, to_plain
from trainlarge.config.schema import CONFIGS, StageConfig
from trainlarge.config.sweep import SweepConfig
from trainlarge.errors import NOT_SET, UserError, shown
from trainlarge.sweep.adapted import adapted
from trainlarge.sweep.causes import Causes
from trainlarge.sweep.compose import Composed, Composer
from trainlarge.sweep.condition import holds
from trainlarge.sweep.grid import Axes, points
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.proof import DamagedFileError
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.sweep.unread import KeysRead

EVERY = "every"
"""As a checkpoint: all train cells of the study that are done."""

NAMED = 5
"""Cells that an error names."""


def sweep_configs(
    composer: Composer, stage: str, command_line: Axes, planned: Planned = NOTHING_PLANNED
) -> list[StageConfig]:
    """Configurations of a sweep's cells: its blocks crossed with the command line's axes, less what it excludes.

    Args:
        composer: makes a configuration of each point.
        stage: ``train`` or ``compress``.
        command_line: key to values.
        planned: train cells whose checkpoints will be there.

    Raises:
        UserError: for values that their keys cannot have, one line per cause with the number of points.
    """
    sweep = sweep_of(composer.config({}))
    grid, configs, checkpoints = points(sweep.blocks, command_line), list[StageConfig](), set[str]()
    keys, causes = KeysRead(stage), Causes(len(grid), "points")
    for point in grid:
        with causes.of():
            composed = adapted(composer.config(point), sweep)
            checkpoints.add(str(composed.get("checkpoint")))
            for config in _lists(composed, planned):
                if not any(holds(text, config, "sweep.exclude") for text in sweep.exclude):
                    configs.append(read_config(stage, keys.without_unread(config)))
    causes.raise_any()
    _check_where(stage, sweep, checkpoints)
    keys.refuse_unread()
    return configs


def sweep_of(composed: Composed) -> SweepConfig:
    """The group ``sweep`` of a composed configuration."""
    return from_plain(SweepConfig, composed["sweep"], "sweep")


def expand_lists(stage: str, composed: Composed, planned: Planned = NOTHING_PLANNED) -> list[StageConfig]:
    """One configuration for each budget, and each checkpoint, that a composed configuration names together.

    Raises:
        UserError: also for blocks and conditions of a sweep, which only a sweep reads.
    """
    sweep = sweep_of(composed)
    for name in ("blocks", "exclude"):
        if value := getattr(sweep, name):
            raise UserError(f"sweep.{name}", value, "must not be set without -m, which runs a sweep")
    _check_where(stage, sweep, {str(composed.get("checkpoint"))})
    composed, keys = adapted(composed, sweep), KeysRead(stage)
    configs = [read_config(stage, keys.without_unread(config)) for config in _lists(composed, planned)]
    keys.refuse_unread()
    return configs


def read_config(stage: str, composed: Composed) -> StageConfig:
    """A composed configuration as that of a cell.

    Raises:
        UserError: for a key that does not exist, or a value that its key cannot have.
    """
    given = {key: value for key, value in composed.items() if key != "sweep"}
    for key, value in given.items():
        if not isinstance(value, dict) and value != NOT_SET:
            check_value(key, value)
    if "budget" in given:
        # Read as text, so that a number without a unit gets an error that says what it lacks.
        given["budget"] = given["budget"] if isinstance(given["budget"], str) else shown(given["budget"])
    refuse_keys_of_others(CONFIGS[stage], given)
    return from_plain(CONFIGS[stage], given)


def _check_where(stage: str, sweep: SweepConfig, checkpoints: Set[str]) -> None:
    """Refuse a condition on checkpoints where none are looked for."""
    if sweep.where is None or EVERY in checkpoints:
        return
    needed = "in the compress stage with checkpoint=every" if stage == "train" else "with checkpoint=every"
    raise UserError("sweep.where", sweep.where, f"null, or used {needed}: it chooses checkpoints")


def _lists(config: Composed, planned: Planned) -> list[Composed]:
    budgets = config.get("budget")
    if isinstance(budgets, list):
        return [{**config, "budget": budget} for budget in budgets]
    if config.get("checkpoint") == EVERY:
        return [{**config, "checkpoint": checkpoint} for checkpoint in finished_checkpoints(config, planned)]
    return [config]


def finished_checkpoints(config: Composed, planned: Planned = NOTHING_PLANNED) -> list[str]:
    """Ids of the finished train cells of ``config["study"]`` that meet ``config["sweep"]["where"]``.

    Args:
        config: a composed configuration of the stage ``compress``.
        planned: train cells that will be finished, too.

    Raises:
        UserError: when there are none.
    """
    study, where = Study.named(str(config["study"])), sweep_of(config).where
    planned = {cell_id: cell for cell_id, cell in planned.items() if cell.config.study == study.name}
    done = [folder for folder in study.folders("train") if folder.says_done()]
    records = {folder.id: record for folder in done if (record := _record(folder))}
    diverged = [cell for cell, record in records.items() if record.get("diverged")]
    trained = [folder for folder in done if folder.id in records and folder.id not in diverged]
    trained = [folder for folder in trained if folder.id not in planned]

    def meets(config: StageConfig) -> bool:
        return where is None or holds(where, to_plain(config), "sweep.where")

    # Without a condition the configurations of the cells need not be read.
    checkpoints = [folder.id for folder in trained if where is None or meets(folder.cell().config)]
    checkpoints += [cell_id for cell_id, cell in planned.items() if meets(cell.config)]
    if not checkpoints:
        has = [f"{study.path} has {len(done)}"]
        has += [f"{len(diverged)} diverged ({', '.join(diverged[:NAMED])})"] if diverged else []
        others = len(trained) + len(planned)
        has += [f"{others} do not meet sweep.where: {where}"] if others else []
        raise UserError("checkpoint", EVERY, f"used in a study with finished train cells; {', '.join(has)}")
    return sorted(checkpoints)


def _record(folder: CellFolder) -> dict[str, Plain] | None:
    """The record of a done cell; None, with a warning, for a damaged one: the other checkpoints are used."""
    try:
        return folder.record_data()
    except DamagedFileError as error:
        logging.getLogger(__name__).warning("left out: %s", error)
        return None
