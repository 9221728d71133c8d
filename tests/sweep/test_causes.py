from __future__ import annotations

import pickle

import pytest

from trainlarge.errors import CombinedUserError, UserError
from trainlarge.sweep import causes as causes_module
from trainlarge.sweep.causes import SHOWN_CAUSES, Causes


def test_each_cause_is_told_once_with_its_cells() -> None:
    causes = Causes(40)
    for number in range(39):
        with causes.of():
            if number % 3 == 0:
                raise UserError("arch.heads", number, "must divide arch.width")
            if number % 3 == 1:
                raise UserError("seed", -1, "a whole number")
    with pytest.raises(CombinedUserError) as error:
        causes.raise_any()
    assert str(error.value).splitlines() == [
        "arch.heads=0,3,6,9,12,... is not valid: must divide arch.width (13 of 40 cells)",
        "seed=-1 is not valid: must be a whole number (13 of 40 cells)",
    ]
    many = Causes(100)
    for number in range(100):
        with many.of():
            raise UserError("key", number, f"more than {number}")
    with pytest.raises(CombinedUserError) as error:
        many.raise_any()
    assert len(error.value.lines) == SHOWN_CAUSES + 1 and error.value.lines[-1] == "and 90 more causes"
    Causes(3).raise_any()


def test_one_cell_keeps_its_error() -> None:
    alone = Causes(1)
    with alone.of():
        raise UserError("seed", -1, "a whole number")
    with pytest.raises(UserError, match=r"^seed=-1 is not valid: must be a whole number$"):
        alone.raise_any()


def test_a_cause_that_is_slow_to_find_is_not_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causes_module, "PATIENCE_SECONDS", 0.0)
    slow = Causes(10_000)
    with pytest.raises(CombinedUserError, match=r"\(at least 1 of 10000 cells\)$") as error:
        for _ in range(10_000):
            with slow.of():
                raise UserError("data.hub", "a/b", "a data set")
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
