"""What the scores of a study mean: their units, directions and thresholds, as its task states them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainlarge.config.metric import Metric
from trainlarge.config.task import TaskConfig, tasks

if TYPE_CHECKING:
    # Commands read these rules too, and should not wait for it.
    import pandas as pd

ANY_TASK: Mapping[str, Metric] = {
    "loss": Metric("nats per prediction", "evaluation loss", tie=0.1, negligible=0.02, broken=1.0),
    "accuracy": Metric("1", "share of predictions that are right", higher_is_better=True),
}
"""What holds for every task: for frames of several, or of one that this version does not know."""


def task_of(frame: pd.DataFrame) -> type[TaskConfig] | None:
    """The task of these cells; None where they have several, or one that is not known.

    Args:
        frame: rows of any frame of a study.
    """
    names = set(frame["task"].dropna()) if "task" in frame else set[str]()
    return tasks().get(names.pop()) if len(names) == 1 else None


def scores(frame: pd.DataFrame) -> Mapping[str, Metric]:
    """The metrics of the task of these cells, ``loss`` first; without one task, what holds for every task."""
    task = task_of(frame)
    return task.metrics if task else ANY_TASK


def task_scores(name: str | None) -> Mapping[str, Metric]:
    """The metrics of a task by its name; None, or a task that is not known: what holds for every task."""
    task = tasks().get(name) if name else None
    return task.metrics if task else ANY_TASK


def frequencies_of(frame: pd.DataFrame) -> str:
    """What a model of the task of these cells learns first, such as ``token frequencies``."""
    task = task_of(frame)
    return task.frequencies if task else "frequencies"


def all_scores() -> dict[str, Metric]:
    """The metrics of all tasks, ``loss`` first: each is a column."""
    return {name: metric for task in tasks().values() for name, metric in task.metrics.items()}


def loss_of(frame: pd.DataFrame) -> Metric:
    """What the loss of these cells means."""
    return scores(frame)["loss"]


def main_score(frame: pd.DataFrame) -> tuple[str, Metric]:
    """The metric that the task of these cells is judged by, and its name: the loss where there is no one task."""
    task = task_of(frame)
    name = task.main_metric if task else "loss"
    return name, scores(frame)[name]


def is_judged_by_loss(task: str | None) -> bool:
    """Whether the loss is what a task is judged by; so is one that is not known.

    The loss of a classifier that is often right is above that of frequencies where it is wrong with great confidence.
    """
    known = tasks().get(task) if task else None
    return known is None or known.main_metric == "loss"


def direction(frame: pd.DataFrame, column: str) -> float:
    """1 where less of a column is better, -1 where more is."""
    metric = scores(frame).get(column)
    return -1.0 if metric and metric.higher_is_better else 1.0


def other_scores(frame: pd.DataFrame) -> dict[str, Metric]:
    """The metrics other than the loss: columns of tables."""
    return {name: metric for name, metric in scores(frame).items() if name != "loss"}


def score_text(metric: Metric, value: float) -> str:
    """A share as per cent, any other score with three decimals."""
    return f"{value:.1%}" if metric.unit == "1" else f"{value:.3f}"


def axis_label(metric: Metric) -> str:
    """What stands at an axis: the metric and its unit."""
    return metric.meaning if metric.unit == "1" else f"{metric.meaning} ({metric.unit})"
