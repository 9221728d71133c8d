"""``trainlarge train`` and ``trainlarge compress``: standard Hydra commands, with errors of one line."""

from __future__ import annotations

from rich.console import Console

from trainlarge.commands.call import Call
from trainlarge.commands.ending import end
from trainlarge.commands.hydra_entry import act_on_cells
from trainlarge.commands.launch_flags import with_keys
from trainlarge.config.schema import StageConfig
from trainlarge.launch.engine import CellsFailedError, Outcome, run_cells


def main(call: Call) -> int:
    """Run the cells of a stage."""
    return end(run_stage(call.verb, with_keys(list(call.arguments)), call.command))


def run_stage(stage: str, arguments: list[str], command: str) -> list[Outcome]:
    """Run the cells that a stage's command line stands for.

    Args:
        stage: ``train`` or ``compress``.
        arguments: Hydra flags and overrides.
        command: the whole command line, as records keep it.

    Returns:
        How it ended, once for each time that a sweeper asked for cells; nothing for flags such as ``--help``.

    Raises:
        UserError: for anything wrong in it.
    """

    def run(stage: str, configs: list[StageConfig]) -> Outcome:
        try:
            return run_cells(stage, configs, Console(), command)
        except CellsFailedError as failure:
            return failure.outcome

    return act_on_cells(stage, arguments, run)
