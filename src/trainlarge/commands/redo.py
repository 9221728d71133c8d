"""``trainlarge redo``: run one cell again from its frozen configuration, as when a file is damaged."""

from __future__ import annotations

import argparse

from trainlarge.commands.call import Call
from trainlarge.commands.ending import end
from trainlarge.commands.show import add_cell, find_cell
from trainlarge.commands.terminal import console
from trainlarge.commands.verbs import verb_parser
from trainlarge.launch.engine import CellsFailedError, redo_cell


def main(call: Call) -> int:
    """Run a cell again, whatever its state."""
    options = parser().parse_args(call.arguments)
    folder = find_cell(options.cell, options.study)
    try:
        outcome = redo_cell(folder, console(), call.command)
    except CellsFailedError as failure:
        outcome = failure.outcome
    return end([outcome])


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("redo")
    add_cell(made)
    return made
