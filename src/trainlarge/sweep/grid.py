"""Axes to points: blocks of axes, their union, and what is excluded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

from trainlarge.config.group import Plain
from trainlarge.errors import UserError, shown

MOST_CELLS = 100_000
"""Cells of one command. More would take minutes to be made before the first one runs."""
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
        UserError: for a block that is not a mapping, an axis without values, or more than ``MOST_CELLS`` points.
    """
    grids = [axes_of(block) | command_line for block in blocks or [{}]]
    _check_size(grids)
    unique: dict[str, Point] = {}
    for axes in grids:
        for values in product(*axes.values()):
            point = _flat(dict(zip(axes, values, strict=True)))
            unique.setdefault(repr(sorted(point.items(), key=lambda item: item[0])), point)
    return list(unique.values())


def axes_of(block: Plain) -> Axes:
    """The axes of a block. A mapping below a group stands for keys of the group: ``arch: {width: [64, 128]}``.

    Raises:
        UserError: for a block that is not a mapping, an axis without values, or a key that no cell has.
    """
    if not isinstance(block, dict):
        raise UserError(
            "sweep.blocks", block, "a list of mappings from a key to its values, as in 'arch.width: [64, 128]'"
        )
    axes: Axes = {key: values if isinstance(values, list) else [values] for key, values in _flat(block).items()}
    for key, values in axes.items():
        if not values:
            raise UserError(key, values, "must have at least one value")
        if key.partition(".")[0] == "sweep":
            raise UserError(key, values, "must not be set in a block: it makes the cells and is no part of them")
    return axes


def _flat(point: Mapping[str, Plain], prefix: str = "") -> Point:
    """Keys in full, with a value each."""
    flat: Point = {}
    for name, value in point.items():
        key = f"{prefix}{name}"
        if not all(key.split(".")):
            raise UserError("sweep.blocks", f"{{{key!r}: ...}}", "made of names of keys, as in 'arch.width: [64, 128]'")
        inner = _flat(value, f"{key}.") if isinstance(value, dict) and value else {key: value}
        for twice in inner.keys() & flat.keys():
            raise UserError(twice, inner[twice], "must be set once in a block")
        flat |= inner
    return flat


def _check_size(grids: Sequence[Axes]) -> None:
    size = sum(math.prod(map(len, axes.values())) for axes in grids)
    if size > MOST_CELLS:
        axes = max(grids, key=lambda axes: math.prod(map(len, axes.values())))
        longest = max(axes, key=lambda key: len(axes[key]))
        allowed = f"at most {MOST_CELLS:,} cells in one command, and they are {shown(size)}: divide the sweep"
        raise UserError(longest, f"{len(axes[longest]):,} values", allowed)
