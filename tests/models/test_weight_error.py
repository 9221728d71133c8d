"""The weight-error statistic."""

from __future__ import annotations

import pytest
import torch

from trainlarge.models.weight_error import (
    WeightError,
    relative_squared_error,
    total_relative_squared_error,
    weight_errors,
)


def test_relative_squared_error() -> None:
    weights = {"a": torch.tensor([[3.0, 4.0]]), "zero": torch.zeros(2, 2), "count": torch.tensor(3)}
    rounded = {"a": torch.tensor([[3.0, 3.0]]), "zero": torch.zeros(2, 2), "count": torch.tensor(3)}
    assert relative_squared_error(weights, rounded) == {"a": pytest.approx(1 / 25), "zero": 0.0}


def test_the_change_of_a_tensor() -> None:
    error = WeightError.between(torch.tensor([[3.0, -4.0]]), torch.tensor([[3.0, -3.0]]))
    assert error == WeightError(2, 0.5, 0.5, 25.0, 1 / 25)


def test_the_total_is_that_of_all_weights_together() -> None:
    before, after = ({name: torch.randn(3, 4) for name in ("a", "b")} for _ in range(2))
    joined = [torch.cat(list(tensors.values())) for tensors in (before, after)]
    total = total_relative_squared_error(weight_errors(before, after, before).values())
    assert total == pytest.approx(WeightError.between(*joined).relative_squared_error)
    assert total_relative_squared_error([]) == 0.0


def test_only_tensors_that_kept_their_shape_are_compared() -> None:
    before = {"kept": torch.ones(2, 2), "cut": torch.ones(3, 2), "gone": torch.ones(2, 2)}
    assert set(weight_errors(before, {"kept": torch.ones(2, 2), "cut": torch.ones(2, 2)}, before)) == {"kept"}
