"""The end of a verb that has run cells: report failures, update the mirror, choose the exit status."""

from __future__ import annotations

import sys

from rich.console import Console

from trainlarge.errors import UserError
from trainlarge.launch.engine import Outcome, report_failures

FAILED_STATUS = 1


def end(outcomes: list[Outcome]) -> int:
    """Print what failed, and mirror what is done.

    Returns:
        Exit status: 0, or 1 where a cell failed.
    """
    failed = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failed:
        report_failures(outcome, Console())
    for outcome in {outcome.study: outcome for outcome in outcomes}.values():
        _mirror(outcome)
    return FAILED_STATUS if failed else 0


def _mirror(outcome: Outcome) -> None:
    """Bring the mirror up to date with what is done; the study folder stays the truth, so a failure is a warning."""
    tracking = outcome.plan.cells[0].config.tracking
    if tracking.written_by is None:
        return
    from trainlarge.tracking.mirror import mirror_study

    try:
        mirror_study(outcome.study, tracking)
    except (UserError, OSError) as error:
        print(f"warning: not mirrored: {error}; later: trainlarge sync {outcome.study.name}", file=sys.stderr)
