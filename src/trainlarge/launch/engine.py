"""From configurations to finished cells: plan, launch, and tell how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from trainlarge.config.schema import LauncherConfig
from trainlarge.errors import UserError
from trainlarge.launch.local import LocalLauncher
from trainlarge.launch.progress import ProgressWatcher
from trainlarge.launch.slurm import SlurmLauncher
from trainlarge.sweep.plan import Plan, make_cells, make_plan
from trainlarge.sweep.status import State
from trainlarge.sweep.store import Study

SHOWN_FAILURES = 20
Launch = Callable[[Study, Plan, Console], bool]
"""Runs or submits the jobs of a plan; whether they have ended when it returns."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    study: Study
    """The study."""
    plan: Plan
    """What was asked for and what had to run."""
    failed: tuple[str, ...]
    """Ids of cells that are not done; empty while they are in a cluster's queue."""
    is_submitted: bool = False
    """Whether jobs were left to a cluster, which runs them after the command has returned."""


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
    launch = _launcher(first)
    plan = make_plan(study, stage, make_cells(stage, configs), redo=first["redo"])
    console.print(
        f"{stage}: {len(plan.cells)} cells, {plan.done} done, {len(plan.jobs)} jobs to run in {study.path}",
        highlight=False,
        soft_wrap=True,
    )
    if plan.jobs and not launch(study, plan, console):
        return Outcome(study, plan, (), is_submitted=True)
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


def _launcher(config: dict[str, Any]) -> Launch:
    name = config["launcher"]["name"]
    if name not in LAUNCHERS:
        raise UserError("launcher", name, ", ".join(LAUNCHERS))
    return LAUNCHERS[name](config)


def _local(config: dict[str, Any]) -> Launch:
    _refuse_cluster_keys(config["launcher"])
    launcher = LocalLauncher(_workers(config["workers"]))

    def run(study: Study, plan: Plan, console: Console) -> bool:
        with ProgressWatcher(study, plan, console) as watcher:
            launcher.run(study, plan, watcher)
        return True

    return run


def _slurm(config: dict[str, Any]) -> Launch:
    launcher = SlurmLauncher(config["launcher"])

    def submit(study: Study, plan: Plan, console: Console) -> bool:
        launcher.submit(study, plan, console)
        return False

    return submit


def _workers(value: Any) -> int:
    if value < 1:
        raise UserError("workers", value, "a whole number of at least 1")
    return int(value)


def _refuse_cluster_keys(launcher: dict[str, Any]) -> None:
    for key, default in asdict(LauncherConfig()).items():
        if launcher.get(key, default) != default:
            raise UserError(f"launcher.{key}", launcher[key], "nothing with launcher=local; it is for launcher=slurm")


LAUNCHERS: dict[str, Callable[[dict[str, Any]], Launch]] = {"local": _local, "slurm": _slurm}
