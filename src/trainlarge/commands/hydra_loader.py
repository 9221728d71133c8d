"""Hydra with a check of every configuration that it composes, before it acts on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from hydra._internal import hydra as hydra_internal
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.types import RunMode
from omegaconf import DictConfig

from trainlarge.commands.hydra_keys import ONLY, check_composed
from trainlarge.errors import UserError


class _CheckedLoader(ConfigLoaderImpl):
    """Refuses configurations that name code; see ``check_composed``."""

    def __init__(self, config_search_path: ConfigSearchPath, stage: str, mode: RunMode) -> None:
        super().__init__(config_search_path)
        self._stage, self._mode = stage, mode

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        try:
            with warnings.catch_warnings():
                # Where a file has the name of one of ours, which is refused below.
                warnings.filterwarnings("ignore", message=".*\n?.*is validated against ConfigStore schema")
                config = super().load_configuration(
                    config_name, overrides, run_mode, from_shell, validate_sweep_overrides
                )
        except KeyError as error:
            raise UserError("hydra.job.env_copy", error, ONLY) from error
        check_composed(self._stage, overrides, config)
        config.hydra.mode = self._mode
        return config


@contextmanager
def hydra_checks(stage: str, is_sweep: bool) -> Iterator[None]:
    """Within the block, what Hydra composes for ``stage`` is checked.

    Args:
        stage: ``train`` or ``compress``.
        is_sweep: whether the command line has ``--multirun``.
    """
    command_mode = RunMode.MULTIRUN if is_sweep else RunMode.RUN

    class Checked(Hydra):
        @classmethod
        def create_main_hydra2(cls, task_name: str, config_search_path: ConfigSearchPath) -> Hydra:
            made = super().create_main_hydra2(task_name, config_search_path)
            made.config_loader = _CheckedLoader(config_search_path, stage, command_mode)
            return made

        def get_mode(self, config_name: str | None, overrides: list[str]) -> RunMode:  # noqa: ARG002
            # Hydra composes everything to find `hydra.mode`, which may not be set.
            return command_mode

    before, hydra_internal.Hydra = hydra_internal.Hydra, Checked  # type: ignore[misc]
    try:
        yield
    finally:
        hydra_internal.Hydra = before  # type: ignore[misc]
