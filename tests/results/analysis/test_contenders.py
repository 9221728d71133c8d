from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from trainlarge.results.analysis.contenders import MOST_SERIES, compressed_contenders, contenders, pairs_left_out
from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.frontier import frontier
from trainlarge.results.analysis.intervals import ComparisonFamily, Difference
from trainlarge.results.frames import StudyFrames
from trainlarge.results.report.findings import findings

COLUMNS = ["series", "cell", "parameters", "budget_unit", "budget_value", "seed", "loss", "per_device", "mixed"]
COLUMNS += ["budget_missed", "step", "flops", "model_seconds"]


def simulated(series: int, budgets: int, seeds: int = 1) -> pd.DataFrame:
    """Train cells whose losses are drawn."""
    random = np.random.default_rng(series)
    rows = [
        (
            *(f"s{number:03}", f"{number} {budget} {seed}", 1000 + number, "steps", float(2**budget), seed),
            *(random.normal(5 - budget, 0.3), 1, False, float("nan")),
            *(float(2**budget * scale) for scale in (1, 1 + number, 1000 / (1 + number))),
        )
        for number in range(series)
        for budget in range(budgets)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.mark.parametrize(("series", "seeds"), [(1, 1), (MOST_SERIES, 2), (MOST_SERIES + 1, 1), (300, 2)])
def test_the_best_of_every_budget_is_among_few_contenders(series: int, seeds: int) -> None:
    cells = simulated(series, 5, seeds)
    chosen = contenders(cells)
    assert len(chosen) == min(series, MOST_SERIES)
    assert chosen == sorted(chosen), "in order of size"
    means = cells.groupby(["budget_value", "series"])["loss"].mean().unstack()
    assert set(means.idxmin(axis=1)) <= set(chosen)
    first = cells.groupby("budget_value")["flops"].idxmin().iloc[0]
    if seeds == 1:
        assert cells.loc[first, "series"] in chosen, "at the fewest FLOPs no other has a loss"
    assert contenders(cells.sample(frac=1, random_state=0)) == chosen


def test_classifiers_are_chosen_by_their_accuracy_and_not_by_their_loss() -> None:
    cells = simulated(2 * MOST_SERIES, 1).assign(task="classification")
    # The higher the loss, the higher the accuracy, and all at the same cost.
    cells = cells.assign(accuracy=cells["loss"] / 10, flops=1.0, model_seconds=1.0, step=1.0, file_bytes=1.0)
    best = set(cells.nlargest(MOST_SERIES, "accuracy")["series"])
    assert set(contenders(cells)) == set(compressed_contenders(cells)) == best
    assert not best & set(contenders(cells.assign(task="mlm")))


def test_the_frontier_of_compressed_models_is_among_the_contenders(frames: StudyFrames) -> None:
    rows = frames.compression
    parts = [rows.assign(series=rows["series"] + f" {number}", loss=rows["loss"] + number / 100) for number in range(9)]
    many = pd.concat(parts, ignore_index=True)
    many["cell"] += [str(number) for number in range(len(many))]
    chosen = compressed_contenders(many)
    assert len(chosen) == MOST_SERIES and set(frontier(many, "file_bytes")["series"]) <= set(chosen)


def test_series_that_are_left_out_count_where_tests_are_corrected() -> None:
    assert pairs_left_out(12, 12) == 0 and pairs_left_out(100, 12) == 4950 - 66
    gaps = {("a", "b"): Difference(1.0, p=0.001), ("a", "c"): Difference(1.0, p=0.04)}
    alone, among = ComparisonFamily(gaps), ComparisonFamily(gaps, left_out=100)
    assert alone["a", "b"].is_clear and alone["a", "c"].is_clear and alone.tested == 2
    assert not among["a", "b"].is_clear and among.tested == 102
    assert ComparisonFamily({}, left_out=5).tested == 0


def test_a_report_of_many_series_says_which_are_compared(frames: StudyFrames) -> None:
    parts = []
    for number in range(50):
        part = frames.cells.assign(seed=number % 2, loss=frames.cells["loss"] + 0.001 * number)
        for name in ("series", "variant"):
            part[name] += f", optim.lr={number // 2}"
        part["cell"] += f" {number}"
        parts.append(part)
    many = StudyFrames(pd.concat(parts, ignore_index=True), frames.curves, frames.compression.iloc[:0])
    evidence = Evidence(many)
    assert len(evidence.whole.cells) == 600 and evidence.cells["series"].nunique() == MOST_SERIES
    told = [str(finding) for finding in findings(many, evidence)]
    assert told[0].startswith("75 series were trained; compared are the 12 that are best at a budget or")
    assert max(map(len, told)) < 2500 and len(told) < 60
