"""``trainlarge``: two stages, and the verbs around them. Heavy imports stay inside the verbs."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trainlarge.commands.launch_flags import VERBS, flags, with_keys
from trainlarge.launch.safe_path import leave_working_directory
from trainlarge.sweep.history import COMMAND_VARIABLE

if TYPE_CHECKING:
    from trainlarge.launch.engine import Outcome
    from trainlarge.sweep.store import Study

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

USER_ERROR_STATUS = 2
FAILED_STATUS = 1
INTERRUPTED_STATUS = 130

STAGE_HELP = """%(prog)s [-m] [+sweeps=STUDY/STAGE] [KEY=VALUE ...]

A Hydra command: -m sweeps, --cfg job shows the configuration, --help tells Hydra's other options.
Beside them: --retries N, --max-failures N, --fail-fast, --no-wait, for the keys launcher.retries and so on."""
PLAN_HELP = "What a command of train or compress would do, with numbers. Nothing runs and nothing is written."
_SWEEP_FLAGS = ("-m", "--multirun")
"""Taken as given: a plan reads every command line as a sweep, of one cell if need be."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        Exit status: 0 all is done, 1 cells failed, 2 the user must change something, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    os.environ[COMMAND_VARIABLE] = shlex.join(["trainlarge", *arguments])
    # The bars of libraries about files that take milliseconds would fill the log of every cell.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
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
    if arguments and arguments[0] in VERBS:
        arguments = [arguments[0], *with_keys(arguments[1:])]
    if arguments and arguments[0] in _STAGES:
        return _stage(arguments[0], arguments[1:])
    if arguments and arguments[0] == "plan":
        return _plan(arguments[1:])
    options = _parser().parse_args(arguments)
    verb: Callable[[argparse.Namespace], int] = options.verb
    return verb(options)


def _stage(stage: str, arguments: list[str]) -> int:
    status, _ = _run_stage(stage, arguments)
    return status


def _run_stage(stage: str, arguments: list[str]) -> tuple[int, list[Outcome]]:
    """Exit status of a stage, and how it ended."""
    from trainlarge.commands.stage import run_stage

    return _ended(lambda: run_stage(stage, arguments))


def _ended(run: Callable[[], list[Outcome]]) -> tuple[int, list[Outcome]]:
    """Run cells, tell what failed and mirror what is done."""
    from rich.console import Console

    from trainlarge.launch.engine import CellsFailed, report_failures

    try:
        outcomes = run()
    except CellsFailed as failure:
        outcomes = [failure.outcome]
    failed = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failed:
        report_failures(outcome, Console())
    for outcome in {outcome.study: outcome for outcome in outcomes}.values():
        _mirror(outcome)
    return FAILED_STATUS if failed else 0, outcomes


def _mirror(outcome: Outcome) -> None:
    """Bring the mirror up to date with what is done; the study folder stays the truth, so a failure is a warning."""
    tracking = outcome.plan.cells[0].config["tracking"]
    if tracking["name"] == "none":
        return
    from trainlarge.errors import UserError
    from trainlarge.tracking.mirror import mirror_study

    try:
        mirror_study(outcome.study, tracking)
    except (UserError, OSError) as error:
        print(f"warning: not mirrored: {error}; later: trainlarge sync {outcome.study.name}", file=sys.stderr)


def _run_study(options: argparse.Namespace) -> int:
    from trainlarge.config.share import sweep_stages

    worst = 0
    for stage in sweep_stages(options.study):
        status, outcomes = _run_stage(stage, ["-m", f"+sweeps={options.study}/{stage}", *options.overrides])
        worst = max(worst, status)
        stopped = next((outcome.stop_reason for outcome in outcomes if outcome.stop_reason), None)
        if stopped:
            print(f"not run: what comes after {stage}: {stopped}")
            return worst
        if any(outcome.is_submitted for outcome in outcomes):
            # What comes next needs what the cluster has not made yet.
            print(f"when these jobs are done, the same command goes on: trainlarge run {options.study}")
            return worst
    return max([worst, *(_write_report(outcome.study) for outcome in outcomes)])


def _report(options: argparse.Namespace) -> int:
    return _write_report(_existing(options.study))


def _write_report(study: Study) -> int:
    from trainlarge.results.report import write_report

    print(f"report: {write_report(study)}")
    return 0


def _sync(options: argparse.Namespace) -> int:
    from trainlarge.tracking.mirror import mirror_study

    tracking = {"name": "wandb", "mode": "online" if options.online else "offline"}
    written = mirror_study(_existing(options.study), tracking | {"project": options.project, "entity": options.entity})
    print(f"{written} runs written to Weights & Biases")
    return 0


def _show(options: argparse.Namespace) -> int:
    from trainlarge.commands.show import show_cell

    print(show_cell(options.cell, options.study))
    return 0


def _redo(options: argparse.Namespace) -> int:
    from rich.console import Console

    from trainlarge.commands.show import find_cell
    from trainlarge.launch.engine import redo_cell

    status, _ = _ended(lambda: [redo_cell(find_cell(options.cell, options.study), Console())])
    return status


def _plan(arguments: list[str]) -> int:
    from trainlarge.commands.plan import foresee, print_json, print_text
    from trainlarge.commands.terminal import console

    parser = argparse.ArgumentParser(prog="trainlarge plan", description=PLAN_HELP)
    parser.add_argument("arguments", nargs="*", metavar="STAGE | +sweeps=STUDY/STAGE | KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--calibrate", action="store_true", help="time a step of each shape, once more where it has a time"
    )
    options = parser.parse_intermixed_args([argument for argument in arguments if argument not in _SWEEP_FLAGS])
    foresight = foresee(options.arguments, options.calibrate)
    if options.json:
        print_json(foresight)
    else:
        print_text(foresight, console())
    return 0


def _status(options: argparse.Namespace) -> int:
    from trainlarge.commands.status_view import show, watch
    from trainlarge.commands.terminal import console

    look = watch if options.watch else show
    look(_existing(options.study), console(), options.json)
    return 0


def _export(options: argparse.Namespace) -> int:
    from pathlib import Path

    from trainlarge.commands.export import export_cell

    folder = export_cell(options.cell, Path(options.folder), options.study)
    print(f"{folder.stage} cell {folder.id}: {options.folder}")
    return 0


def _clean(options: argparse.Namespace) -> int:
    from trainlarge.commands.cleanup import Wanted
    from trainlarge.commands.cleanup_view import clean
    from trainlarge.commands.terminal import console

    wanted = Wanted(options.checkpoints, options.packed, options.keep)
    clean(_existing(options.study), wanted, console(), is_wanted=options.yes)
    return 0


def _existing(name: str) -> Study:
    from trainlarge.errors import UserError
    from trainlarge.sweep.store import Study, studies_root

    study = Study.named(name)
    if not study.path.is_dir():
        known = sorted(path.name for path in studies_root().glob("[!.]*") if path.is_dir())
        raise UserError("study", name, f"a study in {studies_root()}: {', '.join(known) or 'there is none yet'}")
    return study


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
    run = verbs.add_parser("run", help="all stages of a study, then its report", parents=[flags()])
    run.add_argument("study", help="a folder of sweeps/, such as quickstart")
    run.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides for every stage, such as workers=2")
    run.set_defaults(verb=_run_study)
    verbs.add_parser("plan", help="what a command would do: cells, jobs, FLOPs, time, space; nothing runs")
    status = verbs.add_parser("status", help="where a study stands: states, progress, failures, what to do next")
    status.add_argument("study")
    status.add_argument("--watch", action="store_true", help="look again every two seconds until all is done")
    status.add_argument("--json", action="store_true", help="for programs: one line of JSON a look")
    status.set_defaults(verb=_status)
    report = verbs.add_parser("report", help="write the report of a study")
    report.add_argument("study")
    report.set_defaults(verb=_report)
    sync = verbs.add_parser("sync", help="bring the mirror in Weights & Biases up to date with a study")
    sync.add_argument("study")
    sync.add_argument("--online", action="store_true", help="upload; without this, runs are written below the study")
    sync.add_argument("--project", default="trainlarge")
    sync.add_argument("--entity")
    sync.set_defaults(verb=_sync)
    show = verbs.add_parser("show", help="configuration, record and log of a cell, and the command that runs it again")
    show.add_argument("cell", help="a cell id, or its start")
    show.add_argument("--study", help="where to look; default: every study")
    show.set_defaults(verb=_show)
    redo = verbs.add_parser("redo", help="make one cell again from its frozen configuration, as when a file is damaged")
    redo.add_argument("cell", help="a cell id, or its start")
    redo.add_argument("--study", help="where to look; default: every study")
    redo.set_defaults(verb=_redo)
    _add_space_verbs(verbs)
    return parser


def _add_space_verbs(verbs: Verbs) -> None:
    export = verbs.add_parser("export", help="write a cell's model and tokenizer as a Hugging Face folder")
    export.add_argument("cell", help="a cell id, or its start")
    export.add_argument("folder", help="a folder that does not exist yet")
    export.add_argument("--study", help="where to look; default: every study")
    export.set_defaults(verb=_export)
    clean = verbs.add_parser("clean", help="free the space of saved states and leftovers that nothing needs any more")
    clean.add_argument("study")
    clean.add_argument("--checkpoints", action="store_true", help="also weights of train cells that are done")
    clean.add_argument("--packed", action="store_true", help="also packed files of compress cells that are done")
    clean.add_argument("--keep", metavar="CONDITION", help="keep those of cells such as 'arch.width == 128'")
    clean.add_argument("--yes", action="store_true", help="remove it; without this it is only shown")
    clean.set_defaults(verb=_clean)


def _is_told_in_a_line(error: BaseException) -> bool:
    from trainlarge.errors import UserError

    return isinstance(error, (UserError, OSError))


_STAGES = {
    "train": "train a cell, or with -m a sweep of them",
    "compress": "compress a checkpoint, or with -m a sweep of recipes",
}

if __name__ == "__main__":
    leave_working_directory()
    sys.exit(main())
