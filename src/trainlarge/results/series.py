"""What a study compares: names for shapes and whatever else it varies, their order, and their last common budget."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from trainlarge.config.plain import not_identity, with_added
from trainlarge.config.schema import TrainConfig
from trainlarge.results.nested import Columns, columns_of

_SHAPE_KEYS = ["arch.width", "arch.depth"]
_NOT_IDENTITY = not_identity(TrainConfig)
_NOT_COMPARED = _NOT_IDENTITY[""] | {"seed", "budget"}
_OF_STARTED = frozenset({"checkpoint", "checkpoint_digest", "optim.lr", "optim.peak_lr"})
_PLAIN = frozenset({bool, int, float, str})
_ABSENT = object()


def name_series(configs: Iterable[object], is_started: bool = False) -> pd.DataFrame:
    """Columns ``shape``, ``variant`` and ``series`` for train configurations, one row each, in their order.

    A key is named only where it tells cells apart that would otherwise have one name: a learning rate that follows from
    the width, or heads that do, need not be said.

    Args:
        configs: of cells of one part of a study (``trainlarge.results.parts``).
        is_started: whether they start from checkpoints. Then neither these nor the learning rate are named: the best
            rate is chosen, and columns say which checkpoint it was.
    """
    columns = _leaves([with_added(TrainConfig, config) for config in configs if isinstance(config, dict)])
    columns = {key: column for key, column in columns.items() if not is_started or key not in _OF_STARTED}
    leaves = pd.DataFrame(
        {key: column for key, column in columns.items() if key in _SHAPE_KEYS or len(set(column)) > 1}
    )
    names = _telling_keys(leaves)
    shape = "d" + leaves["arch.width"].astype(str) + "/L" + leaves["arch.depth"].astype(str)
    shape = _join(shape, _label(leaves, [name for name in names if name.startswith("arch.")]))
    variant = _label(leaves, [name for name in names if not name.startswith("arch.")])
    return pd.DataFrame({"shape": shape, "variant": variant, "series": _join(shape, variant)})


def by_size(frame: pd.DataFrame) -> list[str]:
    """Series from the smallest to the largest."""
    sizes = frame.groupby("series")["parameters"].first().reset_index()
    return list(sizes.sort_values(["parameters", "series"])["series"])


def last_budget(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the largest budget that all series have; of the one that most have, where none is common."""
    budgets = frame.groupby(["budget_unit", "budget_value"])["series"].nunique().reset_index()
    unit, value, _ = budgets.sort_values(["series", "budget_unit", "budget_value"]).iloc[-1]
    is_last = frame["budget_unit"].eq(unit) & frame["budget_value"].eq(value)
    return frame[is_last]


def _leaves(values: list[object], path: str = "", hidden: frozenset[str] = _NOT_COMPARED) -> Columns:
    """Dotted path -> the value of each configuration there, NaN where it has none; paths in the order of the first.

    Only of paths with several values, and of width and depth.

    Column by column, since most of ten thousand configurations have the same keys.
    """
    leaves: Columns = {}
    for key, column in columns_of(values, _ABSENT).items():
        # Nearly all keys have one value, and then it is quicker to see that than to look at types.
        if path + key not in _SHAPE_KEYS and type(column[0]) in _PLAIN and column.count(column[0]) == len(column):
            continue
        types = set(map(type, column)) if key not in hidden else set()
        if dict in types:
            leaves |= _leaves(column, f"{path}{key}.", _NOT_IDENTITY.get(key, frozenset()))
        if types - {dict, type(_ABSENT)}:
            leaves[path + key] = column if types <= _PLAIN else [_leaf(value) for value in column]
    return leaves


def _leaf(value: object) -> object:
    """A value as pandas groups it."""
    if value is _ABSENT or isinstance(value, dict):
        return math.nan
    return value if isinstance(value, (int, float, str)) else str(value)


def _telling_keys(leaves: pd.DataFrame) -> list[str]:
    """Keys that vary between cells which agree in width, depth and the keys before."""
    chosen: list[str] = []
    for key in leaves.columns:
        if key in _SHAPE_KEYS:
            continue
        if leaves.groupby(_SHAPE_KEYS + chosen, dropna=False)[key].nunique(dropna=False).max() > 1:
            chosen.append(key)
    return chosen


def _label(leaves: pd.DataFrame, keys: list[str]) -> pd.Series:
    label = pd.Series("", index=leaves.index, dtype=str)
    for key in keys:
        label = _join(label, key + "=" + leaves[key].astype(str))
    return label


def _join(left: pd.Series, right: pd.Series) -> pd.Series:
    joined = left.astype(str) + ", " + right.astype(str)
    return joined.str.removeprefix(", ").str.removesuffix(", ")
