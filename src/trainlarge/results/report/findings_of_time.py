"""Which budgets in seconds cannot be trusted, and which cells were trained in their warm-up alone."""

from __future__ import annotations

import pandas as pd

from trainlarge.results.comparable import missed
from trainlarge.results.report.finding import Finding, listed

DISTURBED_SHARE = 0.8
"""CPU time of the training thread over wall time below which other work ran on its core: 0.98 on a quiet machine."""


def budgets_missed(cells: pd.DataFrame) -> list[Finding]:
    """Which cells got too few steps for their seconds: what holds at equal training time holds for the others only."""
    ratio = cells.loc[missed(cells), "budget_missed"].max()
    text = (
        f"{{}} got too few steps: their budgets in seconds buy up to {ratio:.1f} times as many, since other work "
        "disturbed the device while the step time was measured. Findings about seconds leave them out; their command, "
        "run again, trains them to the end"
    )
    return _sentence(cells, missed(cells), text)


def never_undisturbed(cells: pd.DataFrame) -> list[Finding]:
    """Cells whose step time was only measured while other work ran: it may really be smaller."""
    shares = cells["thread_share"].astype(float)
    share = 100 * shares.min()
    text = (
        f"In {{}} the step time was never measured undisturbed (the training thread had {share:.0f} % of a core): "
        "their seconds were measured while other work ran; trainlarge plan --calibrate measures again"
    )
    return _sentence(cells, shares < DISTURBED_SHARE, text)


def all_warm_up(cells: pd.DataFrame) -> list[Finding]:
    """Cells all of whose steps lie inside the warm-up: their learning rate never reached its peak."""
    return _sentence(
        cells,
        cells["step"] <= cells["warmup_steps"],
        "In {} all steps lie inside the warm-up (schedule.warmup_steps), so that the learning rate never reached its "
        "peak",
    )


def _sentence(cells: pd.DataFrame, which: pd.Series, text: str) -> list[Finding]:
    """``text`` about some of the cells: their number in place of ``{}``, and their names. Nothing about none."""
    those = cells[which]
    if those.empty:
        return []
    names = listed(f"{name} ({count})" for name, count in those["series"].value_counts(sort=False).items())
    return [Finding(f"{text.format(f'{len(those)} of {len(cells)} cells')}: {names}.", is_result=False)]
