"""The smallest compressed model of each checkpoint that is still good enough, tickets and their controls apart."""

from __future__ import annotations

import pandas as pd

from trainlarge.results.recipes import same_task
from trainlarge.results.scores import direction

TICKETS = ("recover_rewind", "recover_control")
"""Columns that tell lottery tickets, their controls and all other recipes apart."""


def smallest_networks(
    compression: pd.DataFrame, share: float = 0.99, y: str = "loss", x: str = "nonzero_parameters"
) -> pd.DataFrame:
    """The smallest model of each checkpoint that reaches a share of its dense score.

    Of a score that is better higher, share * dense is to be reached; of a loss, dense / share, as of
    ``recover.budget='until 0.99 dense'``. A dense score of 0 or below is itself the goal. Lottery tickets from initial
    or early weights, their controls, and all other recipes have rows of their own.

    Args:
        compression: the frame of that name.
        share: of the dense score.
        y: ``loss`` or another metric of the task.
        x: what is to be small: ``nonzero_parameters``, ``file_bytes``, ...

    Returns:
        Rows of ``compression`` with a column ``goal``, one per checkpoint and kind, by the parameters of the
        checkpoint; none for a kind that does not reach it.
    """
    sign, dense = direction(compression, y), f"dense_{y}"
    rows = same_task(compression).dropna(subset=[x, y, dense])
    of_share = rows[dense] * share if sign < 0 else rows[dense] / share
    rows = rows.assign(goal=of_share.where(rows[dense] > 0, rows[dense]))
    reached = rows[sign * rows[y] <= sign * rows["goal"]].sort_values([x, "cell"], kind="stable")
    smallest = reached.drop_duplicates(["parent", *TICKETS])
    return smallest.sort_values(["parameters", "parent", *TICKETS], kind="stable")
