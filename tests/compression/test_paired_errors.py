"""Errors of two models on the same rows: intervals against a bootstrap done by hand, McNemar's p against its sum."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from trainlarge.compression.paired_errors import Change, PairedErrors, Turned
from trainlarge.compression.resampled_scores import SCORES
from trainlarge.sweep import resampling
from trainlarge.sweep.resampling import DRAWS, drawn, resampled_means
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet
from trainlarge.training.document_losses import Documents

Numbers = NDArray[Any]


def _documents(ids: Tensor) -> Documents:
    return Documents.of(EvaluationSet({"labels": torch.zeros_like(ids)}, "", ids))


def _rows(count: int, predictions: int = 1) -> Tensor:
    return torch.arange(count)[:, None].expand(count, predictions)


def _paired(before: Tensor | None, after: Tensor | None, documents: Documents) -> PairedErrors:
    pair = []
    for right in (before, after):
        metrics = {"loss": 1.0} if right is None else {"loss": 1.0, "accuracy": right.double().mean().item()}
        shape = (documents.count, 1) if right is None else right.shape
        pair.append(Evaluation(metrics, torch.ones(shape), right=right))
    return PairedErrors.of(*pair, documents, torch.zeros(pair[0].losses.shape))


def _labelled(labels: Numbers, predictions: Numbers) -> Evaluation:
    scores = class_scores(labels, predictions, 2)
    given = torch.from_numpy(predictions)
    return Evaluation({"loss": 1.0, **scores}, torch.ones(len(labels), 1), given, torch.ones(len(labels), 2))


def class_scores(labels: Numbers, predictions: Numbers, classes: int) -> dict[str, float]:
    """By their definitions: F1 of each class, and R_K as a correlation of indicators."""
    f1 = {
        one: 2 * ((labels == one) & (predictions == one)).sum() / ((labels == one).sum() + (predictions == one).sum())
        for one in {*labels.tolist(), *predictions.tolist()}
    }
    true, predicted = (np.eye(classes)[values] - np.eye(classes)[values].mean(0) for values in (labels, predictions))
    spread = math.sqrt((true**2).sum() * (predicted**2).sum())
    return {
        "accuracy": float((labels == predictions).mean()),
        "f1": f1.get(1, 0.0) if classes == 2 else float(np.mean(list(f1.values()))),
        "matthews": float((true * predicted).sum() / spread) if spread > 1e-9 else 0.0,
    }


def _number_scores(labels: Numbers, predictions: Numbers, _classes: int) -> dict[str, float]:
    """With pandas, which has its own ranks."""
    first, second = pd.Series(labels), pd.Series(predictions)
    if second.nunique() == 1:
        return {"pearson": 0.0, "spearman": 0.0}
    return {"pearson": first.corr(second), "spearman": first.rank().corr(second.rank())}


def _check_repeated(labels: Numbers, predictions: Numbers, scores: dict[str, Any], classes: int) -> None:
    times = drawn(len(labels))[:, :50]
    for name, score in scores.items():
        resampled = SCORES[name](labels.astype(float), predictions.astype(float), times, classes)
        repeated = (np.repeat(np.arange(len(labels)), column.astype(int)) for column in times.T)
        expected = [score(labels[rows], predictions[rows], classes)[name] for rows in repeated]
        assert resampled == pytest.approx(np.array(expected), abs=1e-9), name


def test_the_interval_is_that_of_a_bootstrap_done_by_hand() -> None:
    """Documents of 1 to 8 rows of 3 predictions: a document is drawn with all of them."""
    draw = np.random.default_rng(0)
    ids = torch.from_numpy(np.repeat(np.arange(60), draw.integers(1, 9, 60)))[:, None].expand(-1, 3)
    noise = torch.from_numpy(draw.normal(size=60))[ids]
    before = torch.from_numpy(draw.normal(3, 1, ids.shape))
    after = before + 0.2 + noise
    change = Change.of_mean(before, after, _documents(ids))
    assert change.value == pytest.approx(float((after - before).mean()))
    means, rows_of = [], [torch.nonzero(ids[:, 0] == one).flatten() for one in range(60)]
    for _ in range(3000):
        rows = torch.cat([rows_of[one] for one in draw.integers(0, 60, 60)])
        means.append(float((after[rows] - before[rows]).mean()))
    low, high = np.quantile(means, [0.025, 0.975])
    assert change.low == pytest.approx(low, abs=0.06 * (high - low))
    assert change.high == pytest.approx(high, abs=0.06 * (high - low))


def test_what_both_models_get_wrong_cancels() -> None:
    draw = torch.Generator().manual_seed(0)
    before = 3 * torch.rand((500, 1), generator=draw)
    same = Change.of_mean(before, before + 0.1, _documents(_rows(500)))
    assert same.low == pytest.approx(0.1, abs=1e-6) and same.high == pytest.approx(0.1, abs=1e-6)
    nothing = Change.of_mean(before, before, _documents(_rows(500)))
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    one = Change.of_mean(before, before + 0.1, _documents(torch.zeros_like(_rows(500))))
    assert (one.low, one.high) == (None, None)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_sum(right_to_wrong: int, wrong_to_right: int) -> None:
    turned, fewer = right_to_wrong + wrong_to_right, min(right_to_wrong, wrong_to_right)
    expected = min(Fraction(1), Fraction(2 * sum(comb(turned, count) for count in range(fewer + 1)), 2**turned))
    assert Turned(right_to_wrong, wrong_to_right).mcnemar_p == pytest.approx(float(expected), rel=1e-9)


def test_mcnemar_holds_for_many_rows_and_for_none() -> None:
    assert Turned(0, 0).mcnemar_p == 1
    assert Turned(5, 1).mcnemar_p == pytest.approx(0.21875)  # as in tables: 2 (1 + 6) / 64
    assert Turned(50_000, 50_000).mcnemar_p == 1
    assert Turned(51_000, 50_000).mcnemar_p == pytest.approx(0.00166, rel=0.02)


def test_classes_that_turned_are_counted() -> None:
    before, after = torch.tensor([[1], [1], [0], [0], [1]]).bool(), torch.tensor([[1], [0], [1], [0], [0]]).bool()
    paired = _paired(before, after, _documents(_rows(5)))
    assert paired.turned == Turned(right_to_wrong=2, wrong_to_right=1)
    assert paired.scores["accuracy"].value == pytest.approx(-0.2) and paired.mcnemar_p == 1
    numbers = _paired(None, None, _documents(_rows(5)))
    assert (numbers.scores, numbers.turned, numbers.mcnemar_p) == ({}, None, None)


def test_tokens_of_one_document_have_no_p() -> None:
    right = torch.rand((8, 4), generator=torch.Generator().manual_seed(0)) > 0.5
    paired = _paired(right, ~right, _documents(_rows(8, 4)))
    assert paired.turned == Turned(int(right.sum()), int((~right).sum())) and paired.mcnemar_p is None


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_resampled_scores_of_classes_are_those_of_repeated_rows(classes: int) -> None:
    draw = np.random.default_rng(classes)
    labels, predictions = draw.integers(0, classes, (2, 40))
    _check_repeated(labels, predictions, dict.fromkeys(("accuracy", "f1", "matthews"), class_scores), classes)
    _check_repeated(labels, np.ones_like(labels), {"f1": class_scores, "matthews": class_scores}, classes)


def test_resampled_correlations_are_those_of_repeated_rows() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 6, 40).astype(float)  # ties, as in STS-B
    predictions = labels + draw.normal(size=40)
    scores = {"pearson": _number_scores, "spearman": _number_scores}
    _check_repeated(labels, predictions, scores, 1)
    _check_repeated(labels, np.full(40, 0.1), scores, 1)


def test_the_interval_of_a_score_is_that_of_a_bootstrap_done_by_hand() -> None:
    draw = np.random.default_rng(3)
    labels = draw.integers(0, 2, 300)
    first, second = (np.where(draw.random(300) < share, labels, 1 - labels) for share in (0.9, 0.8))
    before, after = (_labelled(labels, predictions) for predictions in (first, second))
    change = Change.of_score("matthews", torch.from_numpy(labels)[:, None], before, after)
    differences = []
    for _ in range(2000):
        rows = draw.integers(0, 300, 300)
        pair = (class_scores(labels[rows], predictions[rows], 2)["matthews"] for predictions in (first, second))
        differences.append(-np.subtract(*pair))
    low, high = np.quantile(differences, [0.025, 0.975])
    assert change.value == pytest.approx(after.metrics["matthews"] - before.metrics["matthews"])
    assert change.low == pytest.approx(low, abs=0.08 * (high - low))
    assert change.high == pytest.approx(high, abs=0.08 * (high - low))
    unknown = replace(before, metrics={"mine": 1.0}), replace(after, metrics={"mine": 3.0})
    assert Change.of_score("mine", torch.from_numpy(labels)[:, None], *unknown) == Change(2.0)


def test_many_documents_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    sums, predictions = draw.normal(size=(2, 300)), draw.integers(1, 5, 300).astype(float)
    whole = resampled_means(sums, predictions)
    assert np.allclose(whole, sums @ drawn(300) / (predictions @ drawn(300)))
    monkeypatch.setattr(resampling, "MOST_KEPT", 7 * 300)
    parts = resampled_means(sums, predictions)
    assert parts.shape == whole.shape == (2, DRAWS)
    assert np.allclose(parts.std(1), whole.std(1), rtol=0.1) and np.allclose(parts.mean(1), whole.mean(1), atol=0.01)
