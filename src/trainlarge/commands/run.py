"""``trainlarge run``: all sweep files of a study in their order, then its report."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from trainlarge.commands.ahead import check_stages
from trainlarge.commands.call import Call
from trainlarge.commands.chain import StageSweep, sweeps_of
from trainlarge.commands.ending import FAILED_STATUS, end
from trainlarge.commands.launch_flags import flags, with_keys
from trainlarge.commands.report import print_report
from trainlarge.commands.stage import run_stage
from trainlarge.commands.terminal import console
from trainlarge.commands.verbs import verb_parser
from trainlarge.launch.engine import Outcome, run_missed
from trainlarge.launch.progress import cells_in_words

TRIES = 3
"""How often one command trains on cells whose budget in seconds was missed."""
SHOWN_FAILED = 5
"""Failed checkpoints that a line names."""
_STILL_MISSED = "the machine is too busy for budgets in seconds; give the same command again when it is quiet"


def main(call: Call) -> int:
    """Run each sweep of a study in turn, until one cannot be followed by the next."""
    options = parser().parse_intermixed_args(with_keys(list(call.arguments)))
    sweeps = sweeps_of(options.study, options.overrides, options.config_dir)
    if len(sweeps) > 1:
        check_stages(sweeps, options.config_dir)
    return _run(sweeps, options.config_dir, call)


def _run(sweeps: list[StageSweep], config_dir: str | None, call: Call) -> int:
    ran: list[list[Outcome]] = []
    tries, worst = iter(range(1, TRIES + 1)), 0
    while len(ran) < len(sweeps):
        sweep = sweeps[len(ran)]
        if sweep.title != sweep.stage and len(sweeps) > 1:
            print(f"{sweep.title}:")
        with sweep.named_in_errors():
            ran.append(run_stage(sweep.stage, sweep.arguments(config_dir), call.command))
        worst = max(worst, end(ran[-1], then=False))
        if stop := _why_stop(sweep, ran[-1], call):
            print(stop)
            return worst
        failed = _failed(ran[-1])
        if failed and any(later.file.starts_from_checkpoints for later in sweeps[len(ran) :]):
            print(_left_out(failed))
        worst = max(worst, _make_good(ran, sweeps, tries))
        if len(ran) < len(sweeps) and _first_missed(ran) is not None:
            print(f"not run: what comes after {sweep.title}: {_STILL_MISSED}")
            return FAILED_STATUS
    if not any(outcome.is_submitted for outcome in ran[-1]):
        for study in dict.fromkeys(outcome.study for outcomes in ran for outcome in outcomes):
            print_report(study)
    if any(outcome.is_submitted for outcomes in ran for outcome in outcomes):
        print(_when_done(call))
    return worst


def _why_stop(sweep: StageSweep, outcomes: list[Outcome], call: Call) -> str | None:
    """Why the sweeps after one that has run cannot follow now; None where they can."""
    stopped = next((outcome.stop_reason for outcome in outcomes if outcome.stop_reason), None)
    if stopped:
        return f"not run: what comes after {sweep.title}: {stopped}"
    if any(outcome.is_submitted and not outcome.had_failed for outcome in outcomes):
        # The next sweep needs what the cluster has not made yet. Cells that fail each time do not hold up the others.
        return _when_done(call)
    return None


def _when_done(call: Call) -> str:
    return f"when these jobs are done, the same command continues: {call.command}"


def _failed(outcomes: list[Outcome]) -> list[str]:
    """Train cells that failed, now or before they were submitted again: nothing can start from them."""
    again = [job for one in outcomes if one.is_submitted for job in one.plan.jobs]
    failed = [cell_id for one in outcomes if one.plan.stage == "train" for cell_id in one.failed]
    return [*failed, *(cell_id for job in again if job.stage == "train" for cell_id in job.cell_ids)]


def _left_out(failed: list[str]) -> str:
    shown = ", ".join([*failed[:SHOWN_FAILED], *(["..."] if len(failed) > SHOWN_FAILED else [])])
    noun = "this checkpoint" if len(failed) == 1 else "these checkpoints"
    return f"left out of what comes next: cells that start from {shown}, since {noun} failed"


def _make_good(ran: list[list[Outcome]], sweeps: Sequence[StageSweep], tries: Iterator[int]) -> int:
    """Train on cells that got fewer steps than their seconds buy: what starts from them would have to be made again.

    Args:
        ran: outcomes of the sweeps so far. Those after the one whose cells are trained on are taken out, to run again.
        sweeps: all of them.
        tries: numbers of the tries that are left.

    Returns:
        Exit status.
    """
    worst = 0
    while (first := _first_missed(ran)) is not None and (number := next(tries, None)):
        del ran[first + 1 :]
        missed = [outcome for outcome in ran[first] if outcome.missed]
        count = cells_in_words(sum(len(outcome.missed) for outcome in missed))
        print(f"{count} of {sweeps[first].title} trained on now: try {number} of {TRIES}")
        with sweeps[first].named_in_errors():
            worst = max(worst, end([run_missed(outcome, console()) for outcome in missed], then=False))
    return worst


def _first_missed(ran: Sequence[Sequence[Outcome]]) -> int | None:
    """The first sweep with a cell whose budget in seconds was missed; None where there is none."""
    return next((place for place, outcomes in enumerate(ran) if any(one.missed for one in outcomes)), None)


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("run", parents=[flags()])
    made.add_argument(
        "study", help="a folder of sweeps/ by its name, such as quickstart, or a folder or file by its path"
    )
    made.add_argument(
        "overrides",
        nargs="*",
        default=(),
        metavar="KEY=VALUE",
        help="for every stage that has the key (workers=2); STAGE.KEY=VALUE for one (compress.quantize.bits=4), "
        "NAME.KEY=VALUE for a file such as 2_train_NAME.yaml",
    )
    made.add_argument("--config-dir", metavar="FOLDER", help="a further folder of configurations, with sweeps/ in it")
    return made
