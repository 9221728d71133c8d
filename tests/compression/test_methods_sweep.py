"""The sweep from which the table of the documentation is made."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from trainlarge.config.method import METHODS
from trainlarge.config.recipe import SLOTS
from trainlarge.config.register import register_schema
from trainlarge.config.share import share_folder
from trainlarge.sweep.compose import Composer
from trainlarge.sweep.expand import sweep_configs

SWEEP = ["+sweeps=compression_methods/compress", f"hydra.searchpath=[file://{share_folder()}]"]


@pytest.mark.long
def test_it_has_every_method_of_every_slot() -> None:
    configs = sweep_configs(Composer(_composed, lambda key: key in SLOTS), "compress", {"checkpoint": ["0123456789ab"]})
    used = {type(getattr(config.recipe, slot)) for config in configs for slot in SLOTS} - {type(None)}
    assert used == {kind for slot in METHODS.values() for kind in slot.values()}


def _composed(choices: list[str]) -> DictConfig:
    register_schema()
    with initialize_config_dir(version_base="1.3", config_dir=str(share_folder() / "conf")):
        return compose("compress", [*SWEEP, *choices])
