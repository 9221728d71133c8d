"""What a study must say of its budgets before anything else: which seconds are none, and where all is warm-up."""

from __future__ import annotations

import pandas as pd

from trainlarge.results.comparable import missed
from trainlarge.results.finding import Finding

DISTURBED_SHARE = 0.8
"""CPU time of the training thread over wall time below which other work ran on its core: 0.98 on a quiet machine."""


def budgets_missed(cells: pd.DataFrame) -> list[Finding]:
    """Which cells got too few steps for their seconds: what holds at equal training time holds for the others only."""
    those = cells[missed(cells)]
    if those.empty:
        return []
    ratio = f"{those['budget_missed'].max():.1f}"
    return [
        Finding(
            f"{len(those)} of {len(cells)} cells got too few steps: their budgets in seconds buy up to {ratio} times "
            f"as many, since other work disturbed the device while the step time was measured. What is said of seconds "
            f"leaves them out; their command, run again, trains them on: {_by_series(those)}.",
            found=False,
        )
    ]


def never_undisturbed(cells: pd.DataFrame) -> list[Finding]:
    """Cells whose step time was only ever measured beside other work: nothing smaller was seen, but may be true."""
    those = cells[cells["thread_share"].astype(float) < DISTURBED_SHARE]
    if those.empty:
        return []
    share = those["thread_share"].astype(float).min()
    return [
        Finding(
            f"In {len(those)} of {len(cells)} cells the step time was never measured undisturbed (the training thread "
            f"had {share:.0%} of a core): their seconds are those beside other work; trainlarge plan --calibrate "
            f"measures again: {_by_series(those)}.",
            found=False,
        )
    ]


def all_warm_up(cells: pd.DataFrame) -> list[Finding]:
    """Cells all of whose steps lie inside the warm-up: their learning rate never reached its peak."""
    those = cells[cells["step"] <= cells["warmup_steps"]]
    if those.empty:
        return []
    return [
        Finding(
            f"In {len(those)} of {len(cells)} cells all steps lie inside the warm-up (schedule.warmup_steps), so that "
            f"the learning rate never reached its peak: {_by_series(those)}.",
            found=False,
        )
    ]


def _by_series(cells: pd.DataFrame) -> str:
    return ", ".join(f"{name} ({count})" for name, count in cells["series"].value_counts(sort=False).items())
