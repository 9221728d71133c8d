"""A composed sweep to the configurations of its cells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Set
from functools import cache

from trainlarge.config.choices import refuse_keys_of_others
from trainlarge.config.group import check_value
from trainlarge.config.plain import from_plain
from trainlarge.config.schema import CONFIGS, StageConfig
from trainlarge.config.sweep import SweepConfig
from trainlarge.errors import NOT_SET, UserError, shown
from trainlarge.sweep.adapted import adapted
from trainlarge.sweep.causes import Causes
from trainlarge.sweep.checkpoints import check_shape
from trainlarge.sweep.compose import Composed, Composer
from trainlarge.sweep.condition import holds
from trainlarge.sweep.every import EVERY, every_checkpoint
from trainlarge.sweep.grid import Axes, points
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.store import Study
from trainlarge.sweep.unread import KeysRead


def sweep_configs(
    composer: Composer,
    stage: str,
    command_line: Axes,
    planned: Planned = NOTHING_PLANNED,
    fixed: Collection[str] = (),
) -> list[StageConfig]:
    """Configurations of a sweep's cells: its blocks crossed with the command line's axes, less what it excludes.

    Args:
        composer: makes a configuration of each point.
        stage: ``train`` or ``compress``.
        command_line: key to values.
        planned: train cells whose checkpoints will be there.
        fixed: keys that the command line sets to one value.

    Raises:
        UserError: for values that their keys cannot have, one line per cause with the number of points.
    """
    sweep = sweep_of(composer.config({}))
    grid, configs, checkpoints = points(sweep.blocks, command_line), list[StageConfig](), set[str]()
    every = _every(stage, sweep, planned)
    keys, causes = KeysRead(stage), Causes(len(grid), "points")
    for point in grid:
        with causes.of():
            composed = adapted(composer.config(point), sweep)
            checkpoints.add(str(composed.get("checkpoint")))
            for config in _lists(composed, every):
                check_shape(stage, config, {*fixed, *point}, planned)
                if not any(holds(text, config, "sweep.exclude") for text in sweep.exclude):
                    configs.append(read_config(stage, keys.without_unread(config)))
    causes.raise_any()
    _check_where(sweep, checkpoints)
    keys.refuse_unread()
    return configs


def sweep_of(composed: Composed) -> SweepConfig:
    """The group ``sweep`` of a composed configuration."""
    return from_plain(SweepConfig, composed["sweep"], "sweep")


def expand_lists(
    stage: str, composed: Composed, planned: Planned = NOTHING_PLANNED, fixed: Collection[str] = ()
) -> list[StageConfig]:
    """One configuration for each budget, and each checkpoint, that a composed configuration names together.

    Args:
        stage: ``train`` or ``compress``.
        composed: the configuration.
        planned: train cells whose checkpoints will be there.
        fixed: keys that the command line sets.

    Raises:
        UserError: also for blocks and conditions of a sweep, which only a sweep reads.
    """
    sweep = sweep_of(composed)
    for name in ("blocks", "exclude"):
        if value := getattr(sweep, name):
            raise UserError(f"sweep.{name}", value, "must not be set without -m, which runs a sweep")
    _check_where(sweep, {str(composed.get("checkpoint"))})
    composed, keys, every = adapted(composed, sweep), KeysRead(stage), _every(stage, sweep, planned)
    configs = list[StageConfig]()
    for config in _lists(composed, every):
        check_shape(stage, config, fixed, planned)
        configs.append(read_config(stage, keys.without_unread(config)))
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


def _check_where(sweep: SweepConfig, checkpoints: Set[str]) -> None:
    """Refuse a condition on checkpoints, and a choice of them, where none are looked for."""
    chosen: dict[str, object] = {"where": sweep.where, "best_of": sweep.best_of}
    for name, value in chosen.items():
        if value and EVERY not in checkpoints:
            unset = "null" if name == "where" else "[]"
            raise UserError(f"sweep.{name}", value, f"{unset}, or used with checkpoint=every: it chooses checkpoints")


def _every(stage: str, sweep: SweepConfig, planned: Planned) -> Callable[[str], list[str]]:
    """Study -> the checkpoints that ``every`` stands for, which are looked for once for all points."""
    return cache(lambda study: every_checkpoint(stage, Study.named(study), sweep, planned))


def _lists(config: Composed, every: Callable[[str], list[str]]) -> list[Composed]:
    """One configuration for each pair of a checkpoint and a budget."""
    checkpoints, budgets = [config.get("checkpoint")], config.get("budget")
    if checkpoints == [EVERY]:
        checkpoints = list(every(str(config["study"])))
    several = [{"budget": budget} for budget in budgets] if isinstance(budgets, list) else [{}]
    if checkpoints == [None] and several == [{}]:
        return [config]
    return [{**config, "checkpoint": checkpoint, **budget} for checkpoint in checkpoints for budget in several]
