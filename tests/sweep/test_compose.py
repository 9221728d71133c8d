from __future__ import annotations

import copy
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from trainlarge.config.register import register_schema
from trainlarge.config.share import share_folder
from trainlarge.errors import UserError
from trainlarge.sweep.compose import Composer, plain
from trainlarge.sweep.expand import read_config, sweep_configs
from trainlarge.sweep.plan import make_cells

GROUPS = {"arch", "schedule", "data"}


def composer(sweep: dict[str, Any] | None = None, *overrides: str, **base: Any) -> Composer:
    def compose(choices: list[str]) -> DictConfig:
        register_schema()
        with initialize_config_dir(version_base="1.3", config_dir=str(share_folder() / "conf")):
            config = hydra_compose("train", [*overrides, *choices])
        OmegaConf.update(config, "sweep", sweep or {})
        for key, value in base.items():
            OmegaConf.update(config, key, value)
        return config

    return Composer(compose, lambda key: key in GROUPS)


POINTS = [
    {"arch.width": 64, "arch.depth": 2},
    {"arch": "roberta", "arch.width": 128, "seed": 3},
    {"schedule": "matched", "optim.lr": 1, "budget": "5 s"},
    {"arch.heads": None, "data.files": ["a.txt", "b.txt"]},
]


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_the_fast_way_gives_what_hydra_composes(point: dict[str, Any]) -> None:
    fast = composer()
    assert fast._plain == {}
    config = fast.config(point)
    assert fast._plain, "no interpolation, so values are set in a plain copy"
    overrides = [f"{key}={'null' if value is None else str(value)}" for key, value in point.items()]
    with initialize_config_dir(version_base="1.3", config_dir=str(share_folder() / "conf")):
        assert config == plain(hydra_compose("train", overrides))


def test_interpolations_follow_the_axes() -> None:
    with_interpolation = composer(None, "arch.heads=${seed}")
    assert [with_interpolation.config({"seed": seed})["arch"]["heads"] for seed in (1, 2)] == [1, 2]


def test_configurations_share_groups_which_neither_later_points_nor_cells_change() -> None:
    fast = composer()
    configs = [fast.config(point) for point in POINTS for _ in range(2)]
    assert configs[0]["optim"] is configs[1]["optim"] and configs[0]["arch"] is not configs[1]["arch"]
    as_made = copy.deepcopy(configs)
    fast.config({"optim.lr": 0.5, "arch.width": 32, "data.files": ["c.txt"]})
    for config in configs:
        data = {**config["data"], "name": "stdlib", "files": []}
        make_cells("train", [read_config("train", {**config, "data": data})])
    assert configs == as_made


def test_the_union_of_blocks_less_what_is_excluded() -> None:
    sweep = {
        "blocks": [{"arch.width": [64, 128], "arch.depth": [1, 2]}, {"arch.width": 64, "arch.depth": [2, 4]}],
        "exclude": ["arch.width == 128 and arch.depth == 1"],
    }
    shapes = [(config.arch.width, config.arch.depth) for config in sweep_configs(composer(sweep), "train", {})]
    assert shapes == [(64, 1), (64, 2), (128, 2), (64, 4)]


def test_the_command_line_crosses_every_block_and_wins() -> None:
    sweep = {"blocks": [{"arch.width": [64, 128]}, {"arch.depth": 3}]}
    configs = sweep_configs(composer(sweep), "train", {"seed": [0, 1], "arch.width": [32]})
    assert [(config.arch.width, config.arch.depth, config.seed) for config in configs] == [
        (32, 2, 0), (32, 2, 1), (32, 3, 0), (32, 3, 1),
    ]  # fmt: skip


def test_a_list_of_budgets_is_an_axis() -> None:
    configs = sweep_configs(composer({"blocks": [{"budget": ["1 s", "2 s"]}]}), "train", {})
    assert [config.budget for config in configs] == ["1 s", "2 s"]


@pytest.mark.parametrize(
    ("sweep", "named"),
    [
        ({"blocks": [{"arch.wdth": [1]}]}, "arch.wdth"),
        ({"blocks": [{"arch.width": ["abc"]}]}, "arch.width=abc"),
        ({"blocks": [{"arch.width": []}]}, r"arch.width=\[\]"),
        ({"blocks": ["arch.width"]}, "sweep.blocks=arch.width"),
        ({"blocks": [{"seed": 1}], "exclude": ["arch.wide == 3"]}, "sweep.exclude=arch.wide == 3"),
    ],
)
def test_a_wrong_sweep_is_refused_in_one_line(sweep: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as error:
        sweep_configs(composer(sweep), "train", {})
    assert "\n" not in str(error.value)
