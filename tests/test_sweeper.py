"""Sweeps as the real command expands them: Hydra's own composition, our sweeper, what a user may write."""

from __future__ import annotations

import time
from typing import Any

from trainlarge.commands.hydra_entry import act_on_cells
from trainlarge.config.launcher import SlurmConfig


def expanded(*arguments: str) -> list[Any]:
    [configs] = act_on_cells("train", list(arguments), lambda stage, configs: configs)
    return configs


def seconds_to_expand(seeds: int) -> float:
    started = time.perf_counter()
    assert len(expanded("-m", "arch.width=64,128", f"seed=range(0,{seeds})")) == 2 * seeds
    return time.perf_counter() - started


def test_a_cell_of_a_sweep_is_what_hydra_composes_for_it_alone() -> None:
    swept = expanded("-m", "arch=modern,roberta", "optim.lr=1e-3,1", "data.files=[a.txt]", "budget=5 s")
    alone = [
        expanded(f"arch={arch}", f"optim.lr={lr}", "data.files=[a.txt]", "budget=5 s")[0]
        for arch in ("modern", "roberta") for lr in ("1e-3", "1")
    ]  # fmt: skip
    assert swept == alone


def test_a_cell_more_takes_well_under_a_hundredth_of_a_second() -> None:
    first = seconds_to_expand(1)
    assert seconds_to_expand(200) - first < 398 * 0.005, "ten thousand cells in seconds, not in ten minutes"


def test_quotes_are_gone_at_every_depth() -> None:
    lists = expanded(
        "-m", "data=text", "data.files=['a b.txt'],['b.txt',c.txt]", "launcher=slurm", "launcher.sbatch=['--hold']"
    )
    assert [config.data.files for config in lists] == [("a b.txt",), ("b.txt", "c.txt")]
    assert isinstance(lists[0].launcher, SlurmConfig) and lists[0].launcher.sbatch == ("--hold",)
    [mapping] = expanded("-m", "sweep.blocks=[{arch.width:64,arch:'roberta'}]", "budget='5 s'")
    assert (mapping.arch.name, mapping.budget) == ("roberta", "5 s")


def test_a_glob_stands_for_the_choices_of_a_group() -> None:
    assert [config.arch.name for config in expanded("-m", "arch=glob(*)")] == ["bert", "llama", "modern", "roberta"]
