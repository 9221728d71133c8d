from __future__ import annotations

import pytest

from trainlarge.errors import UserError
from trainlarge.results.units import scale_of, significant


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("model_seconds", 7.48, "7.5 s"),
        ("model_seconds", 128, "128 s"),
        ("model_seconds", 59.996, "60 s"),
        ("model_seconds", 1800, "30 min"),
        ("train_seconds", 1e6, "12 d"),
        ("flops", 2e12, "2 TFLOPs"),
        ("flops", 1.5e20, "150 EFLOPs"),
        ("step", 4206, "4,206 steps"),
        ("step", 123456, "123,000 steps"),
        ("file_bytes", 454_000, "454 kB"),
        ("file_bytes", 0, "0 B"),
        ("tokens", 1e9, "1 Gtokens"),
    ],
)
def test_values_are_written_with_units(column: str, value: float, text: str) -> None:
    assert scale_of(column).write(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.012345, "0.0123"), (999.6, "1000"), (1234.0, "1230"), (-2.5, "-2.5")]
)
def test_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_an_unknown_axis_is_refused() -> None:
    with pytest.raises(UserError, match="x=colour is not valid: must be one of model_seconds"):
        scale_of("colour")
