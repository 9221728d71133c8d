"""``trainlarge``: two stages, and the verbs around them. Heavy imports stay inside the verbs."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence

USER_ERROR_STATUS = 2
FAILED_STATUS = 1
INTERRUPTED_STATUS = 130

STAGE_HELP = """%(prog)s [-m] [+sweeps=STUDY/STAGE] [KEY=VALUE ...]

A Hydra command: -m sweeps, --cfg job shows the configuration, --help tells Hydra's other options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        Exit status: 0 all is done, 1 cells failed, 2 the user must change something, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    os.environ["TRAINLARGE_COMMAND"] = shlex.join(["trainlarge", *arguments])
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED_STATUS
    except (ValueError, OSError) as error:
        if debug or not _is_told_in_a_line(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_STATUS


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in _STAGES:
        return _stage(arguments[0], arguments[1:])
    options = _parser().parse_args(arguments)
    verb: Callable[[argparse.Namespace], int] = options.verb
    return verb(options)


def _stage(stage: str, arguments: list[str]) -> int:
    from rich.console import Console

    from trainlarge.launch.engine import CellsFailed, report_failures
    from trainlarge.stage_command import run_stage

    try:
        run_stage(stage, arguments)
    except CellsFailed as failure:
        report_failures(failure.outcome, Console())
        return FAILED_STATUS
    return 0


def _run_study(options: argparse.Namespace) -> int:
    from trainlarge.config.share import sweep_stages

    statuses = [
        _stage(stage, ["-m", f"+sweeps={options.study}/{stage}", *options.overrides])
        for stage in sweep_stages(options.study)
    ]
    return max([*statuses, _report(options)])


def _report(options: argparse.Namespace) -> int:
    from trainlarge.results.report import write_report
    from trainlarge.sweep.store import Study

    print(f"report: {write_report(Study.named(options.study))}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from trainlarge.results.show import show_cell

    print(show_cell(options.cell, options.study))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trainlarge",
        description="How large should I train, for how long, and how far should I compress it?",
        epilog="Studies lie under studies/ of the working directory, or where TRAINLARGE_STUDIES says.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for stage, text in _STAGES.items():
        verbs.add_parser(stage, help=text, usage=STAGE_HELP)
    run = verbs.add_parser("run", help="all stages of a study, then its report")
    run.add_argument("study", help="a folder of sweeps/, such as quickstart")
    run.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides for every stage, such as workers=2")
    run.set_defaults(verb=_run_study)
    report = verbs.add_parser("report", help="write the report of a study")
    report.add_argument("study")
    report.set_defaults(verb=_report)
    show = verbs.add_parser("show", help="configuration, record and log of a cell, and the command that runs it again")
    show.add_argument("cell", help="a cell id, or its start")
    show.add_argument("--study", help="where to look; default: every study")
    show.set_defaults(verb=_show)
    return parser


def _is_told_in_a_line(error: BaseException) -> bool:
    from trainlarge.errors import UserError

    return isinstance(error, (UserError, OSError))


_STAGES = {
    "train": "train a cell, or with -m a sweep of them",
    "compress": "compress a checkpoint, or with -m a sweep of recipes",
}

if __name__ == "__main__":
    sys.exit(main())
