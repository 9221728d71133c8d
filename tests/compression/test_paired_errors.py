"""Errors of two models on the same rows: intervals against a bootstrap done by hand, McNemar's p against its sum."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainlarge.compression.paired_errors import Change, PairedErrors, Turned
from trainlarge.sweep import resampling
from trainlarge.sweep.resampling import DRAWS, drawn, resampled_means
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet
from trainlarge.training.document_losses import Documents


def _documents(ids: Tensor) -> Documents:
    return Documents.of(EvaluationSet({"labels": torch.zeros_like(ids)}, "", ids))


def _rows(count: int, predictions: int = 1) -> Tensor:
    return torch.arange(count)[:, None].expand(count, predictions)


def _evaluation(losses: Tensor, right: Tensor | None) -> Evaluation:
    return Evaluation({"loss": losses.double().mean().item()}, losses, right)


def test_the_interval_is_that_of_a_bootstrap_done_by_hand() -> None:
    """Documents of 1 to 8 rows of 3 predictions: a document is drawn with all of them."""
    draw = np.random.default_rng(0)
    ids = torch.from_numpy(np.repeat(np.arange(60), draw.integers(1, 9, 60)))[:, None].expand(-1, 3)
    noise = torch.from_numpy(draw.normal(size=60))[ids]
    before = torch.from_numpy(draw.normal(3, 1, ids.shape))
    after = before + 0.2 + noise
    change = Change.of(before, after, _documents(ids))
    assert change.value == pytest.approx(float((after - before).mean()))
    means = []
    for _ in range(4000):
        rows = torch.cat([torch.nonzero(ids[:, 0] == one).flatten() for one in draw.integers(0, 60, 60)])
        means.append(float((after[rows] - before[rows]).mean()))
    low, high = np.quantile(means, [0.025, 0.975])
    assert change.low == pytest.approx(low, abs=0.06 * (high - low))
    assert change.high == pytest.approx(high, abs=0.06 * (high - low))


def test_what_both_models_get_wrong_cancels() -> None:
    draw = torch.Generator().manual_seed(0)
    before = 3 * torch.rand((500, 1), generator=draw)
    same = Change.of(before, before + 0.1, _documents(_rows(500)))
    assert same.low == pytest.approx(0.1, abs=1e-6) and same.high == pytest.approx(0.1, abs=1e-6)
    nothing = Change.of(before, before, _documents(_rows(500)))
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    one = Change.of(before, before + 0.1, _documents(torch.zeros_like(_rows(500))))
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
    losses = torch.ones(5, 1)
    paired = PairedErrors.of(_evaluation(losses, before), _evaluation(losses, after), _documents(_rows(5)))
    assert paired.classes is not None and paired.classes.turned == Turned(right_to_wrong=2, wrong_to_right=1)
    assert paired.classes.accuracy.value == pytest.approx(-0.2) and paired.classes.mcnemar_p == 1
    numbers = PairedErrors.of(_evaluation(losses, None), _evaluation(losses, None), _documents(_rows(5)))
    assert numbers.classes is None


def test_tokens_of_one_document_have_no_p() -> None:
    right = torch.rand((8, 4), generator=torch.Generator().manual_seed(0)) > 0.5
    losses = torch.ones(8, 4)
    paired = PairedErrors.of(_evaluation(losses, right), _evaluation(losses, ~right), _documents(_rows(8, 4)))
    assert paired.classes is not None and paired.classes.mcnemar_p is None
    assert paired.classes.turned == Turned(int(right.sum()), int((~right).sum()))


def test_many_documents_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    sums, predictions = draw.normal(size=(2, 300)), draw.integers(1, 5, 300).astype(float)
    whole = resampled_means(sums, predictions)
    assert np.allclose(whole, sums @ drawn(300) / (predictions @ drawn(300)))
    monkeypatch.setattr(resampling, "MOST_KEPT", 7 * 300)
    parts = resampled_means(sums, predictions)
    assert parts.shape == whole.shape == (2, DRAWS)
    assert np.allclose(parts.std(1), whole.std(1), rtol=0.1) and np.allclose(parts.mean(1), whole.mean(1), atol=0.01)
