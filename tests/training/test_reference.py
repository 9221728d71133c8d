"""The loss curve of what trains by default against a plain loop: the library's forward pass, eager attention, fp32,
AdamW as torch has it."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainlarge.config.schema import TrainConfig
from trainlarge.data.prepare import prepare
from trainlarge.models.build import build_model
from trainlarge.models.forward import FORWARDS, library_logits
from trainlarge.models.shape import shape_of
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tasks.step import step_of
from trainlarge.tasks.task import make_task
from trainlarge.training.cells import STAGE
from trainlarge.training.schedule import make_schedule
from trainlarge.training.train_run import TrainRun

Tiny = Callable[..., TrainConfig]
Run = Callable[[str, list[dict[str, Any]]], list[CellFolder]]
Losses = Callable[[dict[str, Any]], list[float]]
SHAPE = ("arch.width=64", "arch.depth=2", "impl.threads=1", "schedule=matched")


def reference_losses(config: dict[str, Any], study: Study) -> list[float]:
    """Training loss of each step of a plain loop."""
    steps, optim = int(config.budget.split()[0]), config.optim
    prepared, step = prepare(config.data, study.data_root), step_of(config)
    model = build_model(shape_of(config), init_std=config.arch.init_std, seed=config.seed, attention="eager")
    schedule = make_schedule(config.schedule, None)
    task, losses = make_task(config.task, config.data, FORWARDS["library"]), []
    matrices, vectors = ([p for p in model.parameters() if (p.ndim >= 2) is many] for many in (True, False))
    groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    betas = (optim.beta1, optim.beta2)
    optimizer = torch.optim.AdamW(groups, betas=betas, eps=optim.eps, fused=False, foreach=False)
    for number in range(steps):
        inputs, positions, labels = task.batch(prepared, config.seed, number, step.rows).values()
        on_trunk = number < schedule.branch_start(steps)
        for group in optimizer.param_groups:
            group["lr"] = optim.peak_lr * (schedule.trunk(number) if on_trunk else schedule.branch(number, steps))
        optimizer.zero_grad()
        loss = cross_entropy(library_logits(model, inputs, positions), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def own_losses(run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch) -> Losses:
    """Runs a configuration as a job and returns the training loss of each step."""
    advance, seen = TrainRun._advance, []

    def noted(run: TrainRun, steps: int, loss: Tensor) -> None:
        advance(run, steps, loss)
        seen.append(loss.item())

    monkeypatch.setattr(TrainRun, "_advance", noted)

    def losses(config: dict[str, Any]) -> list[float]:
        seen.clear()
        [folder] = run_here("train", [config])
        folder.clear_result()
        shutil.rmtree(study.path / "trunks", ignore_errors=True)
        return list(seen)

    return losses


def test_in_fp32_every_step_is_that_of_the_plain_loop(tiny: Tiny, study: Study, own_losses: Losses) -> None:
    config = STAGE.resolve(tiny(*SHAPE, "impl.precision=fp32", "budget=50 steps"))
    expected, own = reference_losses(config, study), own_losses(config)
    assert own == pytest.approx(expected, rel=2e-4), "rounding, which the steps before add up"
    assert own[:10] == pytest.approx(expected[:10], rel=1e-5)


@pytest.mark.long
def test_at_the_end_the_difference_is_within_the_noise_of_seeds(tiny: Tiny, study: Study, own_losses: Losses) -> None:
    def config(seed: int, *impl: str) -> dict[str, Any]:
        return STAGE.resolve(tiny(*SHAPE, *impl, f"seed={seed}", "budget=200 steps"))

    plain = [end(reference_losses(config(seed), study)) for seed in (0, 1, 2)]
    noise = statistics.stdev(plain)
    for precision in ("fp32", "auto"):
        own = end(own_losses(config(0, f"impl.precision={precision}")))
        assert abs(own - plain[0]) < noise, precision


def end(losses: list[float]) -> float:
    return statistics.mean(losses[-20:])
