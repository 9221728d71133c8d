"""Which models have learned more than how often tokens occur."""

from __future__ import annotations

import pandas as pd

PLATEAU_MARGIN = 0.1
"""A model has left the plateau when its loss is at least this far (nats) below that of token frequencies."""


def on_plateau(losses: pd.Series, frequency_losses: pd.Series) -> pd.Series:
    """Whether each loss shows no more than token frequencies; False where their loss was not recorded."""
    return losses.astype(float) > frequency_losses.astype(float) - PLATEAU_MARGIN


def frequency_loss_of(cells: pd.DataFrame) -> float | None:
    """Loss of token frequencies on the evaluation set of the cells; None where no cell recorded it."""
    known = cells["token_frequency_loss"].dropna()
    return float(known.iloc[0]) if len(known) else None
