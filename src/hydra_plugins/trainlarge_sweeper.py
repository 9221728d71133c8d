"""The thin Hydra sweeper: expands ``sweep.blocks`` and the command line to cells and hands them to the engine."""

from __future__ import annotations

from typing import cast

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, Sweep
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from trainlarge.commands.hydra_entry import chosen
from trainlarge.config.group import Plain
from trainlarge.errors import UserError
from trainlarge.sweep.compose import Composer
from trainlarge.sweep.expand import sweep_configs, sweep_of
from trainlarge.sweep.grid import Axes, axes_of

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="trainlarge",
    node={"_target_": "hydra_plugins.trainlarge_sweeper.TrainlargeSweeper"},
    provider="trainlarge",
)


class TrainlargeSweeper(Sweeper):
    """Sweeps over the union of the blocks of a sweep file, crossed with the axes of the command line."""

    hydra_context: HydraContext
    config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def sweep(self, arguments: list[str]) -> object:
        """Expand the sweep and hand its cells to what the verb asked for: run them, or only plan them."""
        overrides = OverridesParser.create(self.hydra_context.config_loader).parse_overrides(arguments)
        fixed = [override for override in overrides if not override.is_sweep_override()]
        composer = Composer(lambda choices: self._compose(fixed, choices), self._is_group)
        axes = {_key(override): _values(override) for override in overrides if override.is_sweep_override()}
        stage = _stage(self.config)
        command = chosen()
        axes |= self._replaced(composer, fixed)
        configs = sweep_configs(composer, stage, axes, command.planned, list(map(_key, fixed)))
        return command.action(stage, configs)

    def _compose(self, fixed: list[Override], choices: list[str]) -> DictConfig:
        chosen = {choice.partition("=")[0] for choice in choices}
        kept = [override.input_line or "" for override in fixed if _key(override) not in chosen]
        config = self.hydra_context.config_loader.load_sweep_config(self.config, kept + choices)
        # As Hydra does before it runs a task. Its node is full of interpolations, which no configuration may carry.
        with open_dict(config):
            config.pop("hydra", None)
        return config

    def _is_group(self, key: str) -> bool:
        return "." not in key and bool(self.hydra_context.config_loader.get_group_options(key))

    def _replaced(self, composer: Composer, fixed: list[Override]) -> Axes:
        """What the command line sets to one value, where a block would set it to another."""
        blocks = sweep_of(composer.config({})).blocks
        swept = {key for block in blocks for key in axes_of(block)}
        return {_key(override): [_unquoted(override.value())] for override in fixed if _key(override) in swept}


def _stage(config: DictConfig) -> str:
    return str(OmegaConf.select(config, "hydra.job.config_name"))


def _key(override: Override) -> str:
    return override.key_or_group


def _values(override: Override) -> list[Plain]:
    if isinstance(override.value(), Sweep) and not override.is_discrete_sweep():
        asked = (override.input_line or "").partition("=")[2]
        raise UserError(_key(override), asked, "a list of values: a,b,c")
    values = [_unquoted(value) for value in override.sweep_iterator()]
    if not values:
        asked = (override.input_line or "").partition("=")[2]
        raise UserError(
            _key(override), asked, "must have at least one value; glob(...) is for names of groups, as in arch=glob(*)"
        )
    return values


def _unquoted(value: object) -> Plain:
    """A value of Hydra's grammar as plain data."""
    if isinstance(value, list):
        return [_unquoted(item) for item in value]
    if isinstance(value, dict):
        return {key: _unquoted(item) for key, item in value.items()}
    return value.text if isinstance(value, QuotedString) else cast(Plain, value)
