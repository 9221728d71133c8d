"""The thin Hydra launcher: lets any other Hydra sweeper (Optuna, ...) run its trials as cells."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from trainlarge.launch.engine import CellsFailed, Outcome, run_cells
from trainlarge.sweep.compose import plain
from trainlarge.sweep.plan import make_cells

ConfigStore.instance().store(
    group="hydra/launcher",
    name="trainlarge",
    node={"_target_": "hydra_plugins.trainlarge_launcher.TrainlargeLauncher"},
    provider="trainlarge",
)


class TrainlargeLauncher(Launcher):
    """Runs each list of overrides as one cell; the loss (nats per token) is what the sweeper minimises."""

    hydra_context: HydraContext
    config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the cells that the lists of overrides describe; one result each, in their order.

        Cells handed to SLURM return no loss: they have not run yet.
        """
        loader = self.hydra_context.config_loader
        composed = [loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
        stage = str(OmegaConf.select(self.config, "hydra.job.config_name"))
        configs = [plain(config) for config in composed]
        try:
            outcome = run_cells(stage, configs, Console())
        except CellsFailed as error:
            outcome = error.outcome
        cells = [make_cells(stage, [config])[0].id for config in configs]
        return [_job_return(outcome, cell, overrides) for cell, overrides in zip(cells, job_overrides, strict=True)]


def _job_return(outcome: Outcome, cell_id: str, overrides: Sequence[str]) -> JobReturn:
    result = JobReturn(overrides=list(overrides))
    if cell_id in outcome.failed:
        result.status = JobStatus.FAILED
        result.return_value = RuntimeError(f"cell {cell_id} failed; see: trainlarge show {cell_id}")
    elif not outcome.is_submitted:
        result.status = JobStatus.COMPLETED
        result.return_value = outcome.study.folder(outcome.plan.stage, cell_id).record()["loss"]
    return result
