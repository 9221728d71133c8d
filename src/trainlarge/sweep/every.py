"""The train cells that ``checkpoint: every`` stands for, and the choice among them by ``sweep.best_of``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainlarge.config.group import Plain
from trainlarge.config.plain import identity_of, to_plain
from trainlarge.config.schema import TrainConfig
from trainlarge.config.sweep import SweepConfig
from trainlarge.errors import UserError
from trainlarge.sweep.choice import group_of, rank
from trainlarge.sweep.condition import holds
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.proof import DamagedFileError
from trainlarge.sweep.store import CellFolder, Study

EVERY = "every"
"""As a checkpoint: all train cells of the study that are done; in the train stage, those from initial weights."""
NAMED = 5
"""Cells that an error names."""
Record = Mapping[str, Plain]
"""The record of a cell as plain data."""


@dataclass(frozen=True)
class Candidate:
    """A train cell among which ``sweep.best_of`` chooses."""

    id: str
    """Its id."""
    config: TrainConfig
    """Its configuration."""
    record: Record | None
    """Its record; None for a cell that is still to be trained."""


def every_checkpoint(stage: str, study: Study, sweep: SweepConfig, planned: Planned = NOTHING_PLANNED) -> list[str]:
    """Ids of the train cells of a study that ``checkpoint: every`` stands for.

    Args:
        stage: that of the cells that start from them.
        study: the study of all of them.
        sweep: its condition ``where``, and the keys of ``best_of``.
        planned: train cells that will be finished, too.

    Raises:
        UserError: when there are none, or nothing is known to choose the best of them by.
    """
    planned = {cell_id: cell for cell_id, cell in planned.items() if cell.config.study == study.name}
    done = [folder for folder in study.folders("train") if folder.says_done() and folder.id not in planned]
    records = {folder.id: record for folder in done if (record := _record(folder))}
    diverged = [cell for cell, record in records.items() if record.get("diverged")]
    trained = [folder for folder in done if folder.id in records and folder.id not in diverged]
    fitting = [folder for folder in trained if _may_start(stage, _checkpoint(records[folder.id]))]
    ahead = {cell_id: cell for cell_id, cell in planned.items() if _may_start(stage, cell.config.checkpoint)}
    if sweep.where is not None or sweep.best_of:
        # Without them, the configurations of the cells need not be read.
        found = [Candidate(folder.id, folder.cell().as_train, records[folder.id]) for folder in fitting]
        found += [Candidate(cell_id, cell.config, None) for cell_id, cell in ahead.items()]
        meeting = [one for one in found if sweep.where is None or holds(sweep.where, to_plain(one.config), _WHERE)]
        checkpoints = best_of(sweep.best_of, meeting) if sweep.best_of else [one.id for one in meeting]
    else:
        checkpoints = [*(folder.id for folder in fitting), *ahead]
    if not checkpoints:
        raise _none(study, sweep, len(done), diverged, (len(trained) + len(planned), len(fitting) + len(ahead)))
    return sorted(checkpoints)


_WHERE = "sweep.where"


def best_of(keys: Sequence[str], candidates: Sequence[Candidate]) -> list[str]:
    """Ids of the best of each group of train cells that agree in all but some keys.

    Best is the highest (or lowest) score of the task's main metric on the part of the training rows that was held out
    to choose by, then the lowest loss there. Of a group with cells that are still to be trained, the first of them
    stands for the one that will be chosen.

    Args:
        keys: what they may differ in.
        candidates: the cells.

    Raises:
        UserError: for a key that none of them has, or a cell without such scores.
    """
    _check_keys(keys, candidates)
    groups: dict[str, list[Candidate]] = {}
    for one in candidates:
        groups.setdefault(group_of(to_plain(one.config), keys), []).append(one)
    return [_best(keys, group).id for group in groups.values()]


def _best(keys: Sequence[str], group: Sequence[Candidate]) -> Candidate:
    first = next((one for one in group if one.record is None), None)
    if first:
        return first
    ranks = {one.id: rank(to_plain(one.config), (one.record or {}).get("selection")) for one in group}
    unknown = [cell_id for cell_id, place in ranks.items() if place is None]
    if unknown:
        allowed = (
            "used with cells that have scores on a part of the training rows (task.selection_share above 0); "
            f"without them: {', '.join(unknown[:NAMED])}"
        )
        raise UserError("sweep.best_of", f"[{', '.join(keys)}]", allowed)
    return min(group, key=lambda one: (ranks[one.id], one.id))


def _check_keys(keys: Sequence[str], candidates: Sequence[Candidate]) -> None:
    """Refuse a key that no cell has: nothing would be chosen by it."""
    for key in keys:
        path = key.split(".")
        if candidates and not any(_has(identity_of(one.config), path) for one in candidates):
            raise UserError("sweep.best_of", key, "made of keys that train cells have, such as optim.lr and budget")


def _has(values: Mapping[str, Plain], path: Sequence[str]) -> bool:
    inner = values.get(path[0])
    return path[0] in values and (len(path) == 1 or (isinstance(inner, dict) and _has(inner, path[1:])))


def _may_start(stage: str, checkpoint: Plain) -> bool:
    """Whether cells of a stage start from a train cell that itself started from ``checkpoint``.

    In the train stage from initial weights only: a rerun then finds the same ones, and not what was made of them.
    """
    return stage != "train" or checkpoint is None


def _checkpoint(record: Record) -> Plain:
    config = record.get("config")
    return config.get("checkpoint") if isinstance(config, dict) else None


def _record(folder: CellFolder) -> Record | None:
    """The record of a done cell; None, with a warning, for a damaged one: the other checkpoints are used."""
    try:
        return folder.record_data()
    except DamagedFileError as error:
        logging.getLogger(__name__).warning("left out: %s", error)
        return None


def _none(study: Study, sweep: SweepConfig, done: int, diverged: Sequence[str], counts: tuple[int, int]) -> UserError:
    """The error where there are none.

    Args:
        done: finished train cells.
        diverged: ids of those that diverged.
        counts: of the others and of those to come, and how many of these may be started from.
    """
    others, fitting = counts
    has = [f"{study.path} has {done}"]
    has += [f"{len(diverged)} diverged ({', '.join(diverged[:NAMED])})"] if diverged else []
    has += [f"{others - fitting} started from a checkpoint themselves"] if others > fitting else []
    has += [f"{fitting} do not meet sweep.where: {sweep.where}"] if fitting else []
    return UserError("checkpoint", EVERY, f"used in a study with finished train cells; {', '.join(has)}")
