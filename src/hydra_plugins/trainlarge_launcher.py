"""The thin Hydra launcher: lets any other Hydra sweeper (Optuna, ...) run its trials as cells."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from trainlarge.commands.hydra_entry import chosen
from trainlarge.config.schema import StageConfig
from trainlarge.errors import UserError
from trainlarge.launch.engine import CellsFailedError, Outcome
from trainlarge.sweep.compose import plain
from trainlarge.sweep.expand import read_config, sweep_of
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.unread import KeysRead

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

        Raises:
            UserError: where the command does not run cells: what another sweeper tries next may depend on results.
        """
        loader = self.hydra_context.config_loader
        composed = [loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
        stage = str(OmegaConf.select(self.config, "hydra.job.config_name"))
        cells, keys = [plain(config) for config in composed], KeysRead(stage)
        if cells and (blocks := sweep_of(cells[0]).blocks):
            raise UserError("sweep.blocks", blocks, "must not be set with another sweeper than trainlarge")
        # What a trial does not read another one may.
        configs = [read_config(stage, keys.without_unread(cell)) for cell in cells]
        outcome = self._act(stage, configs)
        ids = [make_cells(stage, [config])[0].id for config in configs]
        return [_job_return(outcome, cell, overrides) for cell, overrides in zip(ids, job_overrides, strict=True)]

    def _act(self, stage: str, configs: list[StageConfig]) -> Outcome:
        outcome = chosen().action(stage, configs)
        if not isinstance(outcome, Outcome):
            sweeper = OmegaConf.select(self.config, "hydra.runtime.choices")["hydra/sweeper"]
            raise UserError(
                "hydra/sweeper", sweeper, "trainlarge, the only sweeper that knows all cells before the first one runs"
            )
        return outcome


def _job_return(outcome: Outcome, cell_id: str, overrides: Sequence[str]) -> JobReturn:
    if cell_id in outcome.failed:
        # A sweeper that stops at a failure raises this, so that it reaches the command as from our own sweeper.
        return JobReturn(overrides=list(overrides), status=JobStatus.FAILED, _return_value=CellsFailedError(outcome))
    folder = outcome.study.folder(outcome.plan.stage, cell_id)
    loss = None if outcome.is_submitted else folder.record().scores.get("loss")
    return JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, _return_value=loss)
