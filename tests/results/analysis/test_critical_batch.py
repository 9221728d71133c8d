from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainlarge.errors import UserError
from trainlarge.results.analysis.critical_batch import best_rates, critical_batches, fit_critical_batch, steps_to_loss
from trainlarge.results.frames import StudyFrames

BATCHES = [512.0 * 2**power for power in range(8)]


def surface(
    least_steps: float, critical: float, batches: list[float], noise: float = 0.0, seed: int = 0
) -> list[float]:
    draw = np.random.default_rng(seed)
    return [least_steps * (1 + critical / batch) * math.exp(noise * draw.standard_normal()) for batch in batches]


@settings(deadline=None, max_examples=30)
@given(st.floats(10, 1e5), st.floats(600, 50_000))
def test_a_surface_without_noise_comes_back(least_steps: float, critical: float) -> None:
    fit = fit_critical_batch(BATCHES, surface(least_steps, critical, BATCHES))
    assert fit.status == "ok" and fit.r_squared == pytest.approx(1)
    assert (fit.least_steps, fit.critical_batch) == pytest.approx((least_steps, critical), rel=1e-5)
    steps = np.array(surface(least_steps, critical, BATCHES))
    assert (steps / fit.least_steps - 1) * (steps * BATCHES / fit.least_tokens - 1) == pytest.approx(1, rel=1e-3)


@pytest.mark.long
def test_with_noise_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    batches = BATCHES * 2
    fits = [fit_critical_batch(batches, surface(300, 6000, batches, noise=0.05, seed=seed)) for seed in range(200)]
    held = np.mean([fit.interval[0] <= 6000 <= fit.interval[1] for fit in fits])
    assert 0.9 < held < 0.99
    assert np.median([fit.critical_batch for fit in fits]) == pytest.approx(6000, rel=0.05)
    assert np.median([fit.interval[1] / fit.interval[0] for fit in fits]) < 2, "and it is narrow"
    assert all(fit.status == "ok" and fit.r_squared > 0.95 for fit in fits)


@pytest.mark.parametrize(("critical", "end"), [(1e7, 1), (1.0, 0)])
def test_batches_on_one_side_give_one_end(critical: float, end: int) -> None:
    fit = fit_critical_batch(BATCHES, surface(300, critical, BATCHES, noise=0.05))
    assert fit.status == "one-sided" and fit.interval[end] in (0.0, math.inf)
    assert fit.interval[0] < critical < fit.interval[1]


def test_two_batches_are_too_few() -> None:
    fit = fit_critical_batch([512, 512, 1024], [100, 101, 70])
    assert fit.status == "too few batches" and math.isnan(fit.critical_batch)


def made(critical: float = 4000.0, rates: tuple[float, ...] = (1e-3,), seeds: int = 1, idle: float = 0) -> StudyFrames:
    """Curves that reach a loss of 3 after the steps of a surface, and ``idle`` ones; a rate other than 2e-3 takes 1.5
    times as long."""
    cells: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for batch in BATCHES:
        for rate in rates:
            for seed in range(seeds):
                name = f"{batch}-{rate}-{seed}"
                series = f"batch={batch}, lr={rate}"
                needed = 200 * (1 + critical / batch) * (1.5 if rate != 2e-3 else 1) + idle
                cells.append({"cell": name, "width": 64, "depth": 2, "series": series, "seed": seed, "batch": batch,
                              "peak_lr": rate, "warmup_steps": 50})  # fmt: skip
                for step in (25 * 2 ** (index / 2) for index in range(15)):
                    loss = 3 + math.log(needed / step)
                    curves.append({"cell": name, "step": step, "loss": loss, "part": "trunk"})
                curves.append({"cell": name, "step": 20_000, "loss": 0.1, "part": "branch"})
    return StudyFrames(pd.DataFrame(cells), pd.DataFrame(curves), pd.DataFrame())


def test_steps_to_a_loss_are_read_off_the_trunk() -> None:
    reached = steps_to_loss(made(), 3.0)
    assert list(reached["steps"]) == pytest.approx([200 * 1.5 * (1 + 4000 / batch) for batch in BATCHES])
    assert list(reached["tokens"]) == pytest.approx(list(reached["steps"] * reached["batch"]))
    assert steps_to_loss(made(), 0.2).empty, "the decay does not count"


def test_the_warm_up_makes_the_critical_batch_too_small_and_can_be_left_out() -> None:
    """Of a warm-up of 50 steps from a rate of 0, half were idle."""
    frames = made(rates=(2e-3,), idle=25)
    assert critical_batches(frames, 3.0)[64, 2].critical_batch < 3700
    fit = critical_batches(frames, 3.0, without_warmup=True)[64, 2]
    assert (fit.critical_batch, fit.least_steps) == pytest.approx((4000, 200), rel=1e-4)


def test_the_fit_of_the_docs() -> None:
    """docs/batch_size.md, steps to a loss of 4.0, with the 50 steps of warm-up and as if they were 25."""
    batches, steps = [512, 1024, 2048, 4096, 8192, 16384], [1031, 534, 267, 205, 138, 113]
    assert fit_critical_batch(batches, steps).critical_batch == pytest.approx(5430, abs=1)
    assert fit_critical_batch(batches, [step - 25 for step in steps]).critical_batch == pytest.approx(7637, abs=1)


def test_budgets_that_share_a_trunk_count_once() -> None:
    frames = made()
    short = frames.curves[frames.curves["step"] < 1000].assign(cell=lambda rows: "short " + rows["cell"])
    cells = pd.concat([frames.cells, frames.cells.assign(cell="short " + frames.cells["cell"])])
    both = StudyFrames(cells, pd.concat([frames.curves, short]), frames.compression)
    pd.testing.assert_frame_equal(steps_to_loss(both, 3.0), steps_to_loss(frames, 3.0))


def test_each_batch_is_taken_with_its_best_rate() -> None:
    best = best_rates(steps_to_loss(made(rates=(1e-3, 2e-3, 4e-3), seeds=2), 3.0))
    assert set(best["peak_lr"]) == {2e-3} and len(best) == 2 * len(BATCHES) and not best["on_edge"].any()
    assert best_rates(steps_to_loss(made(rates=(2e-3, 4e-3)), 3.0))["on_edge"].all()
    assert not best_rates(steps_to_loss(made(), 3.0))["on_edge"].any(), "one rate has no edge"


def test_the_study_as_a_whole() -> None:
    fit = critical_batches(made(rates=(1e-3, 2e-3, 4e-3)), 3.0)[64, 2]
    assert (fit.critical_batch, fit.least_steps) == pytest.approx((4000, 200), rel=1e-4)
    with pytest.raises(UserError, match=r"^target=0\.01 is not valid: .*the lowest is"):
        critical_batches(made(), 0.01)
