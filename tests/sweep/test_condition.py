from __future__ import annotations

from typing import Any

import pytest

from trainlarge.errors import UserError
from trainlarge.sweep.condition import holds

CONFIG: dict[str, Any] = {
    "arch": {"name": "modern", "width": 64, "depth": 2, "heads": None},
    "budget": "2e+12 FLOPs",
    "seed": 0,
}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("budget == 2e12", True),
        ("budget == '2 TFLOPs'", True),
        ("budget < 1e12", False),
        ("arch.width == 64 and arch.depth > 2", False),
        ("arch.width == 64 and not arch.depth > 2", True),
        ("arch.width in [128, 64]", True),
        ("arch.name not in ('roberta',)", True),
        ("0 <= seed < 1", True),
        ("seed == -1 or arch.depth == 2", True),
        ("arch.heads is None", True),
        ("arch.heads is not None", False),
        ("arch.depth is not None and seed is None", False),
    ],
)
def test_conditions_hold_or_not(condition: str, expected: bool) -> None:
    assert holds(condition, CONFIG) is expected


@pytest.mark.parametrize(
    "condition",
    [
        "arch.wide == 3",
        "width == 64",
        "arch.width == ",
        "__import__('os')",
        "arch.width()",
        "budget < '3 s'",
        "1 +",
        "arch < 3",
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(condition: str) -> None:
    with pytest.raises(UserError, match=r"^where=") as error:
        holds(condition, CONFIG)
    assert "\n" not in str(error.value)
