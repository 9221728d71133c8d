"""A composed sweep to the configurations of its cells."""

from __future__ import annotations

import logging
from typing import Any

from trainlarge.errors import UserError
from trainlarge.sweep.compose import Composer
from trainlarge.sweep.condition import holds
from trainlarge.sweep.grid import Point, points
from trainlarge.sweep.proof import DamagedFile
from trainlarge.sweep.store import CellFolder, Study

EVERY = "every"
"""As a checkpoint: all train cells of the study that are done."""

NAMED = 5
"""Cells that an error names."""


def sweep_configs(composer: Composer, command_line: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Configurations of a sweep's cells: its blocks crossed with the command line's axes, less what it excludes."""
    base = composer.config({})
    sweep = base["sweep"]
    configs = [config for point in points(sweep["blocks"], command_line) for config in point_configs(composer, point)]
    return [config for config in configs if not any(holds(text, config, "sweep.exclude") for text in sweep["exclude"])]


def point_configs(composer: Composer, point: Point) -> list[dict[str, Any]]:
    """Configurations of one point: one for each budget of a list, and for each checkpoint that ``every`` stands for."""
    return expand_lists(composer.config(point))


def expand_lists(config: dict[str, Any]) -> list[dict[str, Any]]:
    """One configuration for each budget, and each checkpoint, that ``config`` names together."""
    if isinstance(config.get("budget"), list):
        return [{**config, "budget": budget} for budget in config["budget"]]
    if config.get("checkpoint") == EVERY:
        return [{**config, "checkpoint": checkpoint} for checkpoint in finished_checkpoints(config)]
    return [config]


def finished_checkpoints(config: dict[str, Any]) -> list[str]:
    """Ids of the study's finished train cells that meet ``sweep.where``.

    Raises:
        UserError: when there are none.
    """
    study, where = Study.named(config["study"]), config["sweep"]["where"]
    done = [folder for folder in study.folders("train") if folder.says_done()]
    records = {folder.id: record for folder in done if (record := _record(folder))}
    diverged = [cell for cell, record in records.items() if record.get("diverged")]
    trained = [folder for folder in done if folder.id in records and folder.id not in diverged]
    found = [folder.id for folder in trained if where is None or holds(where, folder.cell().config, "sweep.where")]
    if not found:
        has = [f"{study.path} has {len(done)}"]
        has += [f"{len(diverged)} diverged ({', '.join(diverged[:NAMED])})"] if diverged else []
        has += [f"{len(trained)} do not meet sweep.where: {where}"] if trained else []
        raise UserError("checkpoint", EVERY, f"in a study with finished train cells; {', '.join(has)}")
    return found


def _record(folder: CellFolder) -> dict[str, Any] | None:
    """The record of a done cell; None, with a warning, for a damaged one: the other checkpoints go on."""
    try:
        return folder.record()
    except DamagedFile as error:
        logging.getLogger(__name__).warning("left out: %s", error)
        return None
