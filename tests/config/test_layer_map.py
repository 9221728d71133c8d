"""Which layers of a teacher a student learns from, by the formulas of the papers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from trainlarge.config.layer_map import Depths, layer_map, read_layer_map
from trainlarge.errors import UserError


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [
        (4, 12, (2, 5, 8, 11)),  # TinyBERT: g(m) = m * 12 / 4, counted from 1
        (6, 12, (1, 3, 5, 7, 9, 11)),
        (5, 12, (2, 4, 7, 9, 11)),
        (12, 12, tuple(range(12))),
        (4, 2, (0, 0, 1, 1)),
        (1, 3, (2,)),
    ],
)
def test_uniform_is_the_formula_of_tinybert(student: int, teacher: int, layers: tuple[int, ...]) -> None:
    found = layer_map("uniform", Depths(student, teacher, ()))
    assert found.layers == tuple(enumerate(layers))
    assert found.hidden == ((0, 0), *((layer + 1, other + 1) for layer, other in enumerate(layers)))


def test_kept_compares_with_the_layers_that_the_student_was_made_of() -> None:
    """XTC: hidden states of the layers kept, and what the first of them reads with what the first layer reads."""
    found = layer_map("kept", Depths(5, 12, (2, 4, 6, 8, 10)))
    assert found.layers == ((0, 2), (1, 4), (2, 6), (3, 8), (4, 10))
    assert found.hidden == ((0, 2), (1, 3), (2, 5), (3, 7), (4, 9), (5, 11))
    assert found.describe() == "0-2 1-4 2-6 3-8 4-10"


def test_last_and_many() -> None:
    last = layer_map("last", Depths(2, 12, ()))
    assert (last.layers, last.hidden) == (((1, 11),), ((2, 12),))
    many = layer_map("many", Depths(2, 3, ()))
    assert many.layers == ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))
    assert many.hidden[0] == (0, 0) and len(many.hidden) == 7


def test_lists_name_layers() -> None:
    assert layer_map((1, 3), Depths(2, 4, ())).layers == ((0, 1), (1, 3))
    pairs = read_layer_map([[1, 3], [0, 1], [1, 2]])
    assert pairs == ((0, 1), (1, 2), (1, 3))
    assert layer_map(pairs, Depths(2, 4, ())).hidden == ((0, 0), (1, 2), (2, 3), (2, 4))


@pytest.mark.parametrize("given", ["first", [], [1, -1], [[0]], [[0, 1, 2]], [0, [1, 2]], 3, None, [True], [1.5]])
def test_what_is_no_map_is_none(given: Any) -> None:
    assert read_layer_map(given) is None


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ((1, 4), "recover.layer_map=[1, 4] is not valid: must be made of student layers from 0 to 1 and teacher layers "
         "from 0 to 3"),
        (((2, 0),), "recover.layer_map=[[2, 0]] is not valid: must be made of student layers from 0 to 1 and"),
        ((1,), "recover.layer_map=[1] is not valid: must be a list of 2 numbers, one for each layer of the student"),
    ],
)  # fmt: skip
def test_layers_that_are_not_there_are_refused(given: Any, allowed: str) -> None:
    with pytest.raises(UserError, match=re.escape(allowed)):
        layer_map(given, Depths(2, 4, ()))
