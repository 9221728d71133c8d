"""How a command runs Hydra: the ``sys.argv`` that Hydra reads, and how its sweeper is given what to do with cells.

Hydra makes the sweeper itself and drops its result. So the action of a command reaches the sweeper through
a context variable, and the results of the action are collected here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from trainlarge.commands.hydra_errors import explained
from trainlarge.commands.hydra_keys import check_command_line, search_path_override
from trainlarge.commands.hydra_loader import hydra_checks
from trainlarge.commands.overrides import check_text
from trainlarge.commands.sweep_files import located
from trainlarge.config.register import register_schema
from trainlarge.config.schema import StageConfig
from trainlarge.config.share import share_folder
from trainlarge.errors import UserError
from trainlarge.launch.engine import CellsFailedError
from trainlarge.machine.environment import variables
from trainlarge.sweep.compose import plain
from trainlarge.sweep.expand import expand_lists
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.text_files import keep_text_in_files
from trainlarge.sweep.text_keys import as_written

T = TypeVar("T")
Action = Callable[[str, list[StageConfig]], T]
"""What a command does with its cells: is given the stage and one configuration for each cell."""


@dataclass(frozen=True)
class Chosen:
    """What the command that is running does with its cells."""

    action: Action[object]
    """Is given them."""
    planned: Planned
    """Train cells whose checkpoints will be there."""


_CHOSEN: ContextVar[Chosen] = ContextVar("chosen")


class _Collected(Generic[T]):
    """An action whose results and errors are kept, since Hydra drops what its sweeper returns."""

    def __init__(self, action: Action[T]) -> None:
        self.action = action
        self.results: list[T] = []
        self.failures: list[BaseException] = []

    def __call__(self, stage: str, configs: list[StageConfig]) -> T:
        try:
            self.results.append(self.action(stage, configs))
        except BaseException as error:
            self.failures.append(error)
            raise
        return self.results[-1]


def act_on_cells(stage: str, arguments: list[str], action: Action[T], planned: Planned = NOTHING_PLANNED) -> list[T]:
    """Hand the cells of a command line to ``action``.

    Args:
        stage: ``train`` or ``compress``.
        arguments: Hydra flags and overrides.
        action: is given one configuration for each cell; not called by flags such as ``--help``.
        planned: train cells whose checkpoints will be there.

    Returns:
        What ``action`` returned, once for each time that it was called: once without a sweep and with our own sweeper,
        more often with a sweeper that chooses its next cells by the results of the last ones.

    Raises:
        UserError: for anything wrong in them.
    """
    register_schema()
    keep_text_in_files()
    collected = _Collected(action)
    try:
        composed = _composed(stage, arguments, Chosen(collected, planned))
        given = [text.lstrip("+~").partition("=")[0] for text in arguments if "=" in text]
        cells = [expand_lists(stage, plain(config), planned, given) for config in composed]
    except CellsFailedError:
        # Raised by a sweeper that stops at a failed cell; the outcome is among the results.
        return collected.results
    except UserError:
        raise
    except Exception as error:
        # The door of everything that a command line and the files it names may say. What the cells ran into is no fault
        # of theirs, and an error of the system names its file.
        if error in collected.failures or (isinstance(error, OSError) and not isinstance(error, HydraException)):
            raise
        raise explained(error, stage, arguments) from error
    # Not run by Hydra, which would print its own lines about an error.
    return [*collected.results, *(action(stage, configs) for configs in cells)]


def _composed(stage: str, arguments: list[str], what: Chosen) -> list[DictConfig]:
    """Run Hydra, whose sweeper gives the cells of a sweep to ``what.action``: what it composed without a sweep."""
    given = [as_written(located(text, stage)) for text in _overrides_last(arguments)]
    flags = check_command_line(given)
    program = [f"trainlarge {stage}", *given, search_path_override([Path.cwd(), share_folder()])]
    composed: list[DictConfig] = []
    app = hydra.main(version_base="1.3", config_path=str(share_folder() / "conf"), config_name=stage)(composed.append)
    with _hydra_reads(program), _chosen(what), hydra_checks(stage, flags.multirun):
        app()
    return composed


def chosen() -> Chosen:
    """What the command that is running does.

    Raises:
        UserError: where Hydra was started by another program than ``trainlarge``.
    """
    try:
        return _CHOSEN.get()
    except LookupError:
        raise UserError("hydra/sweeper", "trainlarge", "used by the command trainlarge only") from None


@contextmanager
def _chosen(what: Chosen) -> Iterator[None]:
    token = _CHOSEN.set(what)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


@contextmanager
def _hydra_reads(arguments: list[str]) -> Iterator[None]:
    """Have Hydra take ``arguments`` as the command line, and raise its errors instead of printing them."""
    before, sys.argv = sys.argv, arguments
    handlers = [*logging.root.handlers]
    try:
        with variables({"HYDRA_FULL_ERROR": "1"}):
            yield
    finally:
        sys.argv = before
        # Hydra adds one for `--info`, which writes to where standard output is now.
        logging.root.handlers[:] = handlers


def _overrides_last(arguments: list[str]) -> list[str]:
    """Hydra's parser wants all overrides in one place; users write them on both sides of flags.

    Raises:
        UserError: for a value that no parser should be given.
    """
    for argument in arguments:
        check_text(argument)
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    flags = [argument for argument in arguments if argument not in overrides]
    # Its value may be left out, and an override is none.
    what = ["all"] if flags and flags[-1] in ("--info", "-i") else []
    return [*flags, *what, *overrides]
