"""Axes to points: blocks of axes, their union, and what is excluded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from trainlarge.errors import UserError

Point = dict[str, Any]
"""What one cell sets: configuration key (or group) to value."""


def points(blocks: list[Any], command_line: dict[str, list[Any]]) -> list[Point]:
    """Every point of the union of ``blocks``, each crossed with the axes given on the command line.

    Args:
        blocks: each maps a key to a value or a list of values, and stands for their product. None: one empty block.
        command_line: key to values; a key given here replaces the same key of a block.

    Raises:
        UserError: for a block that is not a mapping, or an axis without values.
    """
    unique: dict[str, Point] = {}
    for block in blocks or [{}]:
        for point in _product(_axes(block) | command_line):
            unique.setdefault(repr(sorted(point.items(), key=lambda item: item[0])), point)
    return list(unique.values())


def _axes(block: Any) -> dict[str, list[Any]]:
    if not isinstance(block, dict):
        raise UserError(
            "sweep.blocks", block, "a list of mappings from a key to its values, as in 'arch.width: [64, 128]'"
        )
    return {str(key): _values(str(key), values) for key, values in block.items()}


def _values(key: str, values: Any) -> list[Any]:
    if not isinstance(values, list):
        return [values]
    if not values:
        raise UserError(key, values, "must have at least one value")
    return values


def _product(axes: dict[str, list[Any]]) -> Iterator[Point]:
    for values in product(*axes.values()):
        yield dict(zip(axes, values, strict=True))
