"""``trainlarge plan``: what a command would do, with numbers, before anything runs. It writes nothing."""

from __future__ import annotations

import argparse
import json
import shlex

from rich.console import Console

from trainlarge.commands.call import Call
from trainlarge.commands.chain import sweeps_of
from trainlarge.commands.forecast import StageForecast, StudyForecast, forecast_stage, forecast_study
from trainlarge.commands.launch_flags import with_keys
from trainlarge.commands.plan_view import print_stage, print_study
from trainlarge.commands.sweep_files import is_path, stage_of_arguments
from trainlarge.commands.terminal import console
from trainlarge.commands.verbs import verb_parser
from trainlarge.errors import UserError
from trainlarge.sweep.stages import STAGES

_SWEEP_FLAGS = ("-m", "--multirun")
"""Taken as given: a plan reads every command line as a sweep, of one cell if need be."""


def main(call: Call) -> int:
    """Print the plan of a command line."""
    given = [argument for argument in with_keys(list(call.arguments)) if argument not in _SWEEP_FLAGS]
    options = parser().parse_intermixed_args(given)
    forecast = forecast_command(options.arguments, options.config_dir, options.calibrate)
    if options.json:
        print(json.dumps(forecast.to_json(), indent=1, allow_nan=False))
        return 0
    _print(forecast, console())
    print(f"next: {_command(options.arguments, call) if forecast.jobs else f'trainlarge report {forecast.study.name}'}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("plan")
    made.add_argument("arguments", nargs="*", metavar="STUDY | PATH | STAGE | KEY=VALUE")
    made.add_argument("--config-dir", metavar="FOLDER", help="a further folder of configurations, with sweeps/ in it")
    made.add_argument("--json", action="store_true", help="for programs")
    made.add_argument(
        "--calibrate", action="store_true", help="time a step of each shape, once more where it has a time"
    )
    return made


def forecast_command(
    arguments: list[str], config_dir: str | None = None, calibrate: bool = False
) -> StageForecast | StudyForecast:
    """The plan of a command line of ``train``, ``compress`` or ``run``.

    Args:
        arguments: a stage, a study, a path or ``+sweeps=STUDY/FILE``, and Hydra overrides.
        config_dir: a further folder of configurations.
        calibrate: first time a step of each shape, also where that was done before, and keep it with the study.

    Raises:
        UserError: for anything that the command itself would refuse.
    """
    if _names_study(arguments):
        return forecast_study(sweeps_of(arguments[0], arguments[1:], config_dir), config_dir, calibrate)
    stage, overrides = _stage_of(arguments)
    folder = [] if config_dir is None else [f"--config-dir={config_dir}"]
    return forecast_stage(stage, ["-m", *folder, *overrides], calibrate)[0]


def _print(forecast: StageForecast | StudyForecast, console: Console) -> None:
    if isinstance(forecast, StudyForecast):
        print_study(forecast, console)
    else:
        print_stage(forecast, console)


def _names_study(arguments: list[str]) -> bool:
    if not arguments or arguments[0] in STAGES:
        return False
    return "=" not in arguments[0] or is_path(arguments[0])


def _stage_of(arguments: list[str]) -> tuple[str, list[str]]:
    """The stage of a command line, and its overrides."""
    if arguments and arguments[0] in STAGES:
        return arguments[0], arguments[1:]
    stage = stage_of_arguments(arguments)
    if stage is None:
        allowed = f"must begin with {', '.join(STAGES)} or a study, or hold +sweeps=STUDY/FILE"
        raise UserError("plan", " ".join(arguments) or "nothing", allowed)
    return stage, arguments


def _command(arguments: list[str], call: Call) -> str:
    """The command that does what was planned."""
    rest = [text for text in call.arguments if text not in (*_SWEEP_FLAGS, "--calibrate")]
    if _names_study(arguments):
        return shlex.join(["trainlarge", "run", *rest])
    stage, _ = _stage_of(arguments)
    return shlex.join(["trainlarge", stage, "-m", *(text for text in rest if text != stage)])
