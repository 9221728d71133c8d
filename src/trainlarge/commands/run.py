"""``trainlarge run``: all stages of a study, then its report."""

from __future__ import annotations

import argparse

from trainlarge.commands.call import Call
from trainlarge.commands.ending import end
from trainlarge.commands.launch_flags import flags, with_keys
from trainlarge.commands.report import print_report
from trainlarge.commands.stage import run_stage
from trainlarge.commands.verbs import verb_parser
from trainlarge.config.share import sweep_stages


def main(call: Call) -> int:
    """Run the sweep of each stage of a study in turn, until one cannot be followed by the next."""
    options = parser().parse_args(with_keys(list(call.arguments)))
    worst = 0
    for stage in sweep_stages(options.study):
        sweep = ["-m", f"+sweeps={options.study}/{stage}", *options.overrides]
        outcomes = run_stage(stage, sweep, call.command)
        worst = max(worst, end(outcomes, then=False))
        stopped = next((outcome.stop_reason for outcome in outcomes if outcome.stop_reason), None)
        if stopped:
            print(f"not run: what comes after {stage}: {stopped}")
            return worst
        if any(outcome.is_submitted for outcome in outcomes):
            # The next stage needs what the cluster has not made yet.
            print(f"when these jobs are done, the same command continues: trainlarge run {options.study}")
            return worst
    for outcome in outcomes:
        print_report(outcome.study)
    return worst


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("run", parents=[flags()])
    made.add_argument("study", help="a folder of sweeps/, such as quickstart")
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides for every stage (workers=2)")
    return made
