"""``trainlarge run``: all sweep files of a study in their order, then its report."""

from __future__ import annotations

import argparse

from trainlarge.commands.ahead import check_stages
from trainlarge.commands.call import Call
from trainlarge.commands.chain import StageSweep, sweeps_of
from trainlarge.commands.ending import end
from trainlarge.commands.launch_flags import flags, with_keys
from trainlarge.commands.report import print_report
from trainlarge.commands.stage import run_stage
from trainlarge.commands.verbs import verb_parser
from trainlarge.sweep.store import Study


def main(call: Call) -> int:
    """Run each sweep of a study in turn, until one cannot be followed by the next."""
    options = parser().parse_intermixed_args(with_keys(list(call.arguments)))
    sweeps = sweeps_of(options.study, options.overrides, options.config_dir)
    if len(sweeps) > 1:
        check_stages(sweeps, options.config_dir)
    return _run(sweeps, options.config_dir, call)


def _run(sweeps: list[StageSweep], config_dir: str | None, call: Call) -> int:
    worst, studies = 0, dict[Study, None]()
    for sweep in sweeps:
        if sweep.title != sweep.stage and len(sweeps) > 1:
            print(f"{sweep.title}:")
        with sweep.named_in_errors():
            outcomes = run_stage(sweep.stage, sweep.arguments(config_dir), call.command)
        worst = max(worst, end(outcomes, then=False))
        studies |= dict.fromkeys(outcome.study for outcome in outcomes)
        stopped = next((outcome.stop_reason for outcome in outcomes if outcome.stop_reason), None)
        if stopped:
            print(f"not run: what comes after {sweep.title}: {stopped}")
            return worst
        if any(outcome.is_submitted for outcome in outcomes):
            # The next sweep needs what the cluster has not made yet.
            print(f"when these jobs are done, the same command continues: {call.command}")
            return worst
    for study in studies:
        print_report(study)
    return worst


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
        help="for every stage that has the key (workers=2); STAGE.KEY=VALUE for one (compress.seed=1), "
        "NAME.KEY=VALUE for a file such as 2_train_NAME.yaml",
    )
    made.add_argument("--config-dir", metavar="FOLDER", help="a further folder of configurations, with sweeps/ in it")
    return made
