from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.data.split import split_of, validation_share
from trainlarge.errors import UserError


def test_share_is_met_on_many_keys():
    validates = sum(split_of(f"key {i}", 0.05) == "validation" for i in range(20_000))
    assert 0.045 < validates / 20_000 < 0.055


@given(st.text(), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_larger_share_only_adds_validation_documents(key, one, other):
    low, high = sorted([one, other])
    assert split_of(key, low) == "train" or split_of(key, high) == "validation"


def test_split_of_known_keys_does_not_change():
    keys = [f"{i}.py" for i in range(60)]
    assert [key for key in keys if split_of(key, 0.05) == "validation"] == ["8.py", "27.py", "35.py", "43.py", "46.py"]


@pytest.mark.parametrize("share", [0, 1, -0.1, "a", None, True, float("nan")])
def test_wrong_share_is_refused(share):
    with pytest.raises(UserError, match="data.validation_share"):
        validation_share({"validation_share": share})
