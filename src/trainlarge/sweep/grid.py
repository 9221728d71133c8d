"""Axes to points: blocks of axes, their union, and what is excluded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from trainlarge.config.group import Plain
from trainlarge.errors import UserError

Point = dict[str, Plain]
"""What one cell sets: configuration key (or group) to value."""
Axes = dict[str, list[Plain]]
"""Configuration key (or group) to its values."""


def points(blocks: Sequence[Plain], command_line: Axes) -> list[Point]:
    """Every point of the union of ``blocks``, each crossed with the axes given on the command line.

    Args:
        blocks: each maps a key to a value or a list of values, and stands for their product. None: one empty block.
        command_line: key to values; a key given here replaces the same key of a block.

    Raises:
        UserError: for a block that is not a mapping, or an axis without values.
    """
    unique: dict[str, Point] = {}
    for block in blocks or [{}]:
        axes = _axes(block) | command_line
        for values in product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            unique.setdefault(repr(sorted(point.items(), key=lambda item: item[0])), point)
    return list(unique.values())


def _axes(block: Plain) -> Axes:
    if not isinstance(block, dict):
        raise UserError(
            "sweep.blocks", block, "a list of mappings from a key to its values, as in 'arch.width: [64, 128]'"
        )
    axes: Axes = {str(key): values if isinstance(values, list) else [values] for key, values in block.items()}
    for key, values in axes.items():
        if not values:
            raise UserError(key, values, "must have at least one value")
    return axes
