"""Dataclasses from plain JSON data: exact round trips, and one line for everything that is not as described."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.config.group import Plain
from trainlarge.config.typed_json import JsonTypeError, plain, read


@dataclass(frozen=True)
class Inner:
    seconds: tuple[float, ...]
    kind: Literal["probe", "training"] = "probe"


@dataclass(frozen=True)
class Outer:
    name: str
    count: int | None = None
    is_on: bool = False
    pair: tuple[int, str] = (0, "")
    inner: Inner | None = None
    many: list[Inner] = field(default_factory=list)
    by_name: Mapping[str, float] = field(default_factory=dict)
    anything: Plain = None
    rows: list[dict[str, Plain]] = field(default_factory=list)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
INNERS = st.builds(Inner, st.lists(NUMBERS).map(tuple), st.sampled_from(["probe", "training"]))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
OUTERS = st.builds(
    Outer,
    name=st.text(),
    count=st.none() | st.integers(),
    is_on=st.booleans(),
    pair=st.tuples(st.integers(), st.text()),
    inner=st.none() | INNERS,
    many=st.lists(INNERS, max_size=3),
    by_name=st.dictionaries(st.text(), NUMBERS),
    anything=PLAIN,
    rows=st.lists(st.dictionaries(st.text(), PLAIN, max_size=2), max_size=2),
)


@given(OUTERS)
def test_what_is_written_is_read_back(outer: Outer) -> None:
    assert read(Outer, plain(outer)) == outer


def test_keys_that_are_missing_have_defaults_and_unknown_ones_are_left_out() -> None:
    assert read(Outer, {"name": "a", "added later": 1}) == Outer("a")


def test_a_whole_number_is_a_number() -> None:
    seconds = read(Inner, {"seconds": [1]}).seconds
    assert seconds == (1.0,)
    assert type(seconds[0]) is float


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "content=[] is not valid: must be a mapping from keys to values"),
        ({}, "name=None is not valid: must be there"),
        ({"name": 1}, "name=1 is not valid: must be text"),
        ({"name": "a", "count": True}, "count=True is not valid: must be a whole number"),
        ({"name": "a", "count": 1.5}, "count=1.5 is not valid: must be a whole number"),
        ({"name": "a", "is_on": 1}, "is_on=1 is not valid: must be true or false"),
        ({"name": "a", "pair": [1]}, "pair=[1] is not valid: must be a list of 2"),
        ({"name": "a", "inner": {"seconds": 1}}, "inner.seconds=1 is not valid: must be a list"),
        ({"name": "a", "many": [{"seconds": ["x"]}]}, "many[0].seconds[0]='x' is not valid: must be a number"),
        ({"name": "a", "many": [{"seconds": [], "kind": []}]}, "many[0].kind=[] is not valid: must be one of"),
        ({"name": "a", "by_name": [1]}, "by_name=[1] is not valid: must be a mapping from keys to values"),
        ({"name": "a", "rows": [1]}, "rows[0]=1 is not valid: must be a mapping from keys to values"),
    ],
)
def test_other_data_end_in_one_line(data: object, message: str) -> None:
    with pytest.raises(JsonTypeError) as refused:
        read(Outer, data)
    assert str(refused.value).startswith(message)


def test_a_long_value_is_shown_in_part_and_the_error_travels_between_processes() -> None:
    with pytest.raises(JsonTypeError) as refused:
        read(Inner, {"seconds": "x" * 1000})
    assert len(str(refused.value)) < 120
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
