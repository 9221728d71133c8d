"""The choice of the best of several train cells, by scores on training rows that are held out for it.

Works on configurations and records as plain data: the results of a study are judged by it, too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from trainlarge.config.canonical import canonical_json
from trainlarge.config.group import Plain
from trainlarge.config.optim import PEAK_FOLLOWS_FROM
from trainlarge.config.plain import not_identity, with_added
from trainlarge.config.schema import TrainConfig
from trainlarge.config.task import tasks

RATE_AND_BUDGET = ("optim.lr", "budget")
"""What is chosen by default."""
Rank = tuple[float, float]
"""Sorts cells, the best first: the score where less is better, then the loss."""
_NOT_IDENTITY = not_identity(TrainConfig)
_DIGESTS = {"checkpoint": "checkpoint_digest"}
"""Path -> what stands for it, where that is there."""


def group_of(config: Mapping[str, Plain], keys: Collection[str]) -> str:
    """A text that is equal for train cells which agree in all but some keys, and what follows from these.

    Args:
        config: a whole configuration.
        keys: what they may differ in.
    """
    left_out = {*keys, *(["optim.peak_lr"] if PEAK_FOLLOWS_FROM.intersection(keys) else [])}
    left: dict[str, Plain] = {}
    for key, value in with_added(TrainConfig, dict(config)).items():
        if key in _NOT_IDENTITY[""] or key in left_out or config.get(_DIGESTS.get(key, "")):
            continue
        hidden = _NOT_IDENTITY.get(key, frozenset())
        left[key] = value
        if isinstance(value, dict):
            names = (name for name in value if name not in hidden and f"{key}.{name}" not in left_out)
            left[key] = {name: value[name] for name in names}
    return canonical_json(left)


def rank(config: Mapping[str, Plain], selection: Plain) -> Rank | None:
    """What sorts a cell by its scores on the held-out rows; None where it has none.

    Args:
        config: its configuration.
        selection: the key ``selection`` of its record.
    """
    group = config.get("task")
    task = tasks().get(str(group.get("name"))) if isinstance(group, dict) else None
    if task is None or not isinstance(selection, dict):
        return None
    score = _number(selection.get(task.main_metric))
    if score is None:
        return None
    loss = _number(selection.get("loss"))
    return (-score if task.metrics[task.main_metric].higher_is_better else score), math.inf if loss is None else loss


def _number(value: Plain) -> float | None:
    """A score; None where it is none, or no number."""
    return float(value) if isinstance(value, (int, float)) and not math.isnan(value) else None
