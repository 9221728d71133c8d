"""A model that is divided among processes computes, is kept and is written as one that is whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainlarge.config.schema import TrainConfig
from trainlarge.sweep.store import CellFolder, Study

Tiny = Callable[..., TrainConfig]
TwoRanks = Callable[[Sequence[str]], list[str]]
Run = Callable[[str, list[dict[str, Any]]], list[CellFolder]]
COMMON = ("impl.precision=fp32", "impl.threads=1", "impl.device=cpu", "optim.eps=1e-3")
FSDP = ("impl.devices=2", "impl.strategy=fsdp")


def test_a_divided_model_is_the_whole_one(two_ranks: TwoRanks) -> None:
    assert two_ranks([str(Path(__file__).with_name("divided_model.py"))]) == ["4 checks held\n"] * 2


def run_once(run_here: Run, study: Study, configs: list[dict[str, Any]]) -> list[Any]:
    """Weights, curve and record of each cell of a job; the study is empty afterwards."""
    results = [
        (load_file(folder.checkpoint / "model.safetensors"), folder.metrics(), folder.record_data())
        for folder in run_here("train", configs)
    ]
    shutil.rmtree(study.path)
    return results


def assert_close(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert one[0].keys() == other[0].keys()
    for name, tensor in one[0].items():
        torch.testing.assert_close(tensor, other[0][name], rtol=1e-4, atol=2e-6, msg=name)
    for row, expected in zip(one[1], other[1], strict=True):
        assert (row["loss"], row["train_loss"]) == pytest.approx((expected["loss"], expected["train_loss"]), rel=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["arch=roberta", "arch.positions=18", "arch.dropout=0", "impl.micro_batch_rows=3"],
        ["optim.lr_rule=mup", "arch.heads=4"],
    ],
    ids=str,
)
def test_two_processes_with_half_of_the_model_each_give_the_steps_of_one(
    tiny: Tiny, run_here: Run, study: Study, overrides: list[str]
) -> None:
    budgets = ["budget=20 steps", "budget=30 steps"]
    one = run_once(run_here, study, [tiny(*COMMON, *overrides, budget) for budget in budgets])
    # A state after every step: gathered from both while training goes on.
    two = run_once(run_here, study, [tiny(*COMMON, *FSDP, "impl.save_seconds=0", *overrides, b) for b in budgets])
    for divided, whole in zip(two, one, strict=True):
        assert_close(divided, whole)
        assert divided[2]["cell"] == whole[2]["cell"], "the same cell, however it is computed"
        environment = divided[2]["environment"]
        assert (environment["strategy"], environment["devices"], environment["forward"]) == ("fsdp", 2, "library")
        assert "strategy" not in whole[2]["environment"], "records of one device stay as they were"


@pytest.mark.long
def test_a_divided_run_goes_on_from_the_states_of_one_device_and_one_device_from_its(
    tiny: Tiny, run_here: Run, study: Study
) -> None:
    [expected] = run_once(run_here, study, [tiny(*COMMON, "budget=40 steps")])
    for before, after in ((FSDP, ()), ((), FSDP)):
        run_here("train", [tiny(*COMMON, *before, "budget=20 steps")])
        [result] = [
            (load_file(folder.checkpoint / "model.safetensors"), folder.metrics(), folder.record_data())
            for folder in run_here("train", [tiny(*COMMON, *after, "budget=40 steps")])
        ]
        shutil.rmtree(study.path)
        assert result[2]["resumed_at"], "it went on from the trunk that the other way had saved"
        assert_close(result, expected)


@pytest.mark.long
def test_a_divided_run_that_diverges_keeps_its_last_good_weights(tiny: Tiny, run_here: Run, study: Study) -> None:
    config = tiny(*COMMON, *FSDP, "optim.clip=0", "budget=20 steps")
    [(weights, _, record)] = run_once(run_here, study, [replace(config, optim=replace(config.optim, peak_lr=1e30))])
    assert record["diverged"] and record["loss"] is None
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
