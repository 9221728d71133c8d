"""Losses per document and their standard error."""

from __future__ import annotations

import json
import math

import pytest
import torch

from trainlarge.tasks.evaluation import EvaluationSet
from trainlarge.training.document_losses import Documents


def _data(documents: list[list[int]] | None) -> EvaluationSet:
    rows = torch.zeros((3, 2), dtype=torch.int64)
    return EvaluationSet({"labels": rows}, "", None if documents is None else torch.tensor(documents))


def test_sums_are_over_documents_whatever_the_rows() -> None:
    found = Documents.of(_data([[4, 4], [4, 7], [9, 7]]))
    losses = torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.00004]])
    assert found.file(loss=losses) == {"documents": [4, 7, 9], "predictions": [3, 2, 1], "loss": [7.0, 40.0, 16.0]}
    assert json.dumps(found.file(loss=losses)).isascii()
    assert found.effective == pytest.approx(36 / 14)
    assert (found.count, found.effective) == (3, pytest.approx(36 / 14))


def test_the_error_is_that_of_a_ratio_of_sums_over_documents() -> None:
    found = Documents.of(_data([[4, 4], [4, 7], [9, 7]]))
    losses = torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]])
    mean = 63 / 6
    rest = [7 - 3 * mean, 40 - 2 * mean, 16 - mean]
    assert found.standard_error(losses) == pytest.approx(math.sqrt(3 / 2 * sum(value**2 for value in rest)) / 6)


def test_rows_of_one_document_are_no_independent_observations() -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.zeros((512, 4), dtype=torch.int64)
    documents = (torch.arange(512) // 32)[:, None].expand(512, 4)
    losses = torch.randn(16, generator=draw)[documents] + 0.1 * torch.randn(512, 4, generator=draw)
    over_rows = Documents.of(EvaluationSet({"labels": rows}, "")).standard_error(losses)
    over_documents = Documents.of(EvaluationSet({"labels": rows}, "", documents)).standard_error(losses)
    assert over_documents == pytest.approx(losses.view(16, -1).mean(1).std().item() / 4, rel=1e-5)
    assert over_documents > 4 * over_rows


def test_one_document_has_no_error() -> None:
    assert Documents.of(_data([[1, 1], [1, 1], [1, 1]])).standard_error(torch.ones(3, 2)) == 0
