"""Which models have learned more than how often tokens occur."""

from __future__ import annotations

import pandas as pd

from trainlarge.config.metric import Metric


def on_plateau(losses: pd.Series, frequency_losses: pd.Series, loss: Metric) -> pd.Series:
    """Whether each loss shows no more than token frequencies; False where their loss was not recorded.

    A model has left the plateau when its loss is below theirs by what counts as a tie of the metric ``loss``.
    """
    return losses.astype(float) > frequency_losses.astype(float) - loss.tie


def frequency_loss_of(cells: pd.DataFrame) -> float | None:
    """Loss of token frequencies on the evaluation set of the cells; None where no cell recorded it."""
    known = cells["token_frequency_loss"].dropna()
    return float(known.iloc[0]) if len(known) else None
