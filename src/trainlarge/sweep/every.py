"""The train cells that ``checkpoint: every`` stands for, and the choice among them by ``sweep.best_of``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
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
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study

log = logging.getLogger(__name__)

EVERY = "every"
"""As a checkpoint: all train cells of the study that are done; in the train stage, those from initial weights."""
NAMED = 5
"""Cells that an error names."""
_REMEDY = "leave them out by sweep.where"
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
    """Its record; None for a cell that has none yet."""
    state: str = ""
    """Why it has none, of a cell that this command does not train: ``failed``, ``running``, ``damaged``, ..."""

    @property
    def is_to_come(self) -> bool:
        """Whether this command trains it."""
        return self.record is None and not self.state


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
        found += _unfinished(stage, study, planned.keys() | records.keys()) if sweep.best_of else []
        meeting = [one for one in found if _meets(sweep, one.config)]
        checkpoints = best_of(sweep.best_of, meeting) if sweep.best_of else [one.id for one in meeting]
        if sweep.best_of:
            _name_lost(study, sweep, diverged)
    else:
        checkpoints = [*(folder.id for folder in fitting), *ahead]
    if not checkpoints:
        raise _none(study, sweep, len(done), diverged, (len(trained) + len(planned), len(fitting) + len(ahead)))
    return sorted(checkpoints)


def _meets(sweep: SweepConfig, config: TrainConfig) -> bool:
    """Whether a checkpoint meets the condition, if there is one."""
    return sweep.where is None or holds(sweep.where, to_plain(config), "sweep.where")


def best_of(keys: Sequence[str], candidates: Sequence[Candidate]) -> list[str]:
    """Ids of the best of each group of train cells that agree in all but some keys.

    Best is the highest (or lowest) score of the task's main metric on the part of the training rows that was held out
    to choose by, then the lowest loss there. Of a group with cells that are still to be trained, the first of them
    stands for the one that will be chosen. Of a group with a cell that failed, or was not trained for another reason,
    nothing is chosen, and a message says so: that cell may be the best one.

    Args:
        keys: what they may differ in.
        candidates: the cells.

    Raises:
        UserError: for a key that none of them has, a cell without such scores, or where nothing can be chosen of any
            group.
    """
    _check_keys(keys, candidates)
    groups: dict[str, list[Candidate]] = {}
    for one in candidates:
        groups.setdefault(group_of(to_plain(one.config), keys), []).append(one)
    is_open = {name: _is_open(group) for name, group in groups.items()}
    waiting = _named(
        [f"{one.id} ({one.state})" for name, group in groups.items() if is_open[name] for one in group if one.state]
    )
    if groups and all(is_open.values()):
        allowed = f"used when every candidate is done, or left out by sweep.where; not done: {waiting}"
        raise UserError("sweep.best_of", f"[{', '.join(keys)}]", allowed)
    if waiting:
        count = f"{sum(is_open.values())} of {len(groups)} groups of sweep.best_of"
        log.warning("left out: %s, whose candidates are not all done: %s; train them, or %s", count, waiting, _REMEDY)
    return [_best(keys, group).id for name, group in groups.items() if not is_open[name]]


def _is_open(group: Sequence[Candidate]) -> bool:
    """Whether it cannot be said which of a group is the best, now or when this command has trained its cells."""
    return any(one.state for one in group) and not any(one.is_to_come for one in group)


def _best(keys: Sequence[str], group: Sequence[Candidate]) -> Candidate:
    first = next((one for one in group if one.is_to_come), None)
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


def _name_lost(study: Study, sweep: SweepConfig, diverged: Sequence[str]) -> None:
    """Say which candidates are never chosen, since they diverged."""
    lost = [cell for cell in diverged if _meets(sweep, study.folder("train", cell).cell().as_train)]
    if lost:
        log.warning("never chosen by sweep.best_of, since they diverged: %s", _named(lost))


def _unfinished(stage: str, study: Study, known: Set[str]) -> list[Candidate]:
    """Train cells that are frozen and not among ``known``: not done, or with a damaged record."""
    found = []
    for folder in study.folders("train"):
        if folder.id in known:
            continue
        try:
            config = folder.cell().as_train
        except UserError:
            # A cell that cannot be read is in no group.
            continue
        if _may_start(stage, config.checkpoint):
            state = folder.status().state
            found.append(Candidate(folder.id, config, None, "damaged" if state is State.DONE else str(state)))
    return found


def _named(texts: Sequence[str]) -> str:
    """The first of many."""
    more = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _checkpoint(record: Record) -> Plain:
    config = record.get("config")
    return config.get("checkpoint") if isinstance(config, dict) else None


def _record(folder: CellFolder) -> Record | None:
    """The record of a done cell; None, with a warning, for a damaged one: the other checkpoints are used."""
    try:
        return folder.record_data()
    except DamagedFileError as error:
        log.warning("left out: %s", error)
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
