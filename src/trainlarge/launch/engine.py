"""From configurations to finished cells: plan, launch, and tell how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from trainlarge.errors import UserError
from trainlarge.launch.local import LocalLauncher
from trainlarge.launch.progress import ProgressWatcher
from trainlarge.sweep.plan import Plan, make_cells, make_plan
from trainlarge.sweep.status import State
from trainlarge.sweep.store import Study

SHOWN_FAILURES = 20
LAUNCHERS: dict[str, Callable[[int], LocalLauncher]] = {"local": LocalLauncher}


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    study: Study
    """The study."""
    plan: Plan
    """What was asked for and what had to run."""
    failed: tuple[str, ...]
    """Ids of cells that are not done."""


class CellsFailed(RuntimeError):
    """Some cells did not finish."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__(f"{len(outcome.failed)} of {len(outcome.plan.cells)} cells are not done")


def run_cells(stage: str, configs: list[dict[str, Any]], console: Console) -> Outcome:
    """Run one cell for each configuration, those that are done excepted.

    All configurations belong to one study and share ``workers``, ``launcher`` and ``redo``.

    Raises:
        UserError: for a configuration that cannot work, before anything is started.
        CellsFailed: when all is over and some cells are not done.
    """
    if not configs:
        raise UserError("sweep", "no cells", "blocks, conditions and checkpoints that leave at least one cell")
    first = configs[0]
    study = Study.named(first["study"])
    workers = _workers(first["workers"])
    launcher = _launcher(first["launcher"]["name"])
    plan = make_plan(study, stage, make_cells(stage, configs), redo=first["redo"])
    console.print(
        f"{stage}: {len(plan.cells)} cells, {plan.done} done, {len(plan.jobs)} jobs to run in {study.path}",
        highlight=False,
        soft_wrap=True,
    )
    if plan.jobs:
        with ProgressWatcher(study, plan, console) as watcher:
            launcher(workers).run(study, plan, watcher)
    failed = tuple(cell.id for cell in plan.cells if not study.folder(stage, cell.id).is_done())
    outcome = Outcome(study, plan, failed)
    if failed:
        raise CellsFailed(outcome)
    return outcome


def report_failures(outcome: Outcome, console: Console) -> None:
    """Name what did not finish and the command that shows why."""
    for cell_id in outcome.failed[:SHOWN_FAILURES]:
        status = outcome.study.folder(outcome.plan.stage, cell_id).status()
        why = status.error or ("held by another process" if status.state is State.RUNNING else "not run")
        console.print(f"{status.state} {cell_id}: {why}", highlight=False, markup=False, soft_wrap=True)
    if len(outcome.failed) > SHOWN_FAILURES:
        console.print(f"... and {len(outcome.failed) - SHOWN_FAILURES} more", highlight=False)
    example = outcome.failed[0]
    console.print(f"see why: trainlarge show {example} --study {outcome.study.name}", highlight=False, soft_wrap=True)


def _workers(value: Any) -> int:
    if value < 1:
        raise UserError("workers", value, "a whole number of at least 1")
    return int(value)


def _launcher(name: str) -> Callable[[int], LocalLauncher]:
    if name not in LAUNCHERS:
        raise UserError("launcher", name, ", ".join(LAUNCHERS))
    return LAUNCHERS[name]
