"""Which models have learned more than how often each token, or label, occurs.

Such frequencies are what a model learns first; its loss then rests for a while on that of predicting by them alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlarge.config.metric import Metric

if TYPE_CHECKING:
    # Commands read these rules too, and should not wait for it.
    import pandas as pd


def on_plateau(losses: pd.Series, frequency_losses: pd.Series, loss: Metric) -> pd.Series:
    """Whether each loss shows no more than frequencies; False where the loss of these was not recorded.

    A model has left the plateau when its loss is below theirs by what counts as a tie of the metric ``loss``.
    """
    return losses.astype(float) > frequency_losses.astype(float) - loss.tie


def has_learned(loss: float, frequency_loss: float, metric: Metric) -> bool:
    """``on_plateau`` of one cell, the other way round: whether its loss shows more than frequencies."""
    return loss <= frequency_loss - metric.tie


def frequency_loss_of(cells: pd.DataFrame) -> float | None:
    """Loss of predicting by frequencies alone on the cells' evaluation set; None where no cell recorded it."""
    known = cells["frequency_loss"].dropna()
    return float(known.iloc[0]) if len(known) else None
