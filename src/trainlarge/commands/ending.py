"""The end of a verb that has run cells: report failures, update the mirror, choose the exit status."""

from __future__ import annotations

import sys

from trainlarge.commands.summary import next_steps, summary
from trainlarge.commands.terminal import console
from trainlarge.errors import UserError
from trainlarge.launch.engine import Outcome, report_failures

FAILED_STATUS = 1


def end(outcomes: list[Outcome], then: bool = True) -> int:
    """Print what came of the cells and what failed, and mirror what is done.

    Args:
        then: say what to do next.

    Returns:
        Exit status: 0, or 1 where a cell failed.
    """
    for outcome in outcomes:
        for line in [*summary(outcome), *(next_steps(outcome) if then else [])]:
            print(line)
    failed = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failed:
        report_failures(outcome, console())
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
