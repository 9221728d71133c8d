"""The weight-error statistic."""

from __future__ import annotations

import pytest
import torch

from trainlarge.compression.weight_error import relative_squared_error


def test_relative_squared_error() -> None:
    weights = {"a": torch.tensor([[3.0, 4.0]]), "zero": torch.zeros(2, 2), "count": torch.tensor(3)}
    rounded = {"a": torch.tensor([[3.0, 3.0]]), "zero": torch.zeros(2, 2), "count": torch.tensor(3)}
    assert relative_squared_error(weights, rounded) == {"a": pytest.approx(1 / 25), "zero": 0.0}
