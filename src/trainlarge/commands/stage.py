"""``trainlarge train`` and ``trainlarge compress``: standard Hydra commands, with errors of one line."""

from __future__ import annotations

import argparse

from trainlarge.commands.call import Call
from trainlarge.commands.ending import end
from trainlarge.commands.hydra_entry import act_on_cells
from trainlarge.commands.keys_of_stage import choices_of_groups
from trainlarge.commands.launch_flags import flags, with_keys
from trainlarge.commands.terminal import console
from trainlarge.commands.verbs import verb_parser
from trainlarge.config.schema import StageConfig
from trainlarge.launch.engine import CellsFailedError, Outcome, run_cells

_EXAMPLES = {
    "train": ["arch.width=256 budget='1e15 FLOPs'", "-m seed=0,1,2 study=mine", "-m +sweeps=quickstart/train"],
    "compress": ["study=mine checkpoint=1f3b5a7c9e02 quantize.bits=4", "-m +sweeps=quickstart/compress"],
}


def main(call: Call) -> int:
    """Run the cells of a stage, or say how."""
    if {"-h", "--help"} & {*call.arguments}:
        parser(call.verb).print_help()
        return 0
    return end(run_stage(call.verb, with_keys(list(call.arguments)), call.command))


def parser(verb: str = "train") -> argparse.ArgumentParser:
    """The arguments of the verb, for its help: Hydra reads them."""
    made = verb_parser(verb, parents=[flags()], epilog=_epilog(verb))
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="a key, or a group and its choice: see below")
    made.add_argument("-m", "--multirun", action="store_true", help="run a sweep: comma-separated values are axes")
    made.add_argument("--cfg", choices=("job",), help="print the configuration, with every key, and run nothing")
    made.add_argument("--package", metavar="KEY", help="with --cfg: only what is below a key, such as optim")
    made.add_argument("--config-dir", metavar="FOLDER", help="look for sweeps/ and groups in this folder too")
    made.add_argument("--info", action="store_true", help="print how the configuration was composed, and run nothing")
    return made


def _epilog(verb: str) -> str:
    groups = (f"  {group}={' | '.join(choices)}" for group, choices in choices_of_groups(verb).items())
    parts = {
        "examples": [f"  trainlarge {verb} {example}" for example in _EXAMPLES[verb]],
        "groups, chosen with GROUP=NAME": list(groups),
        "keys": [f"  trainlarge {verb} --cfg job prints all with their values; docs/configuration.md says more"],
    }
    return "\n\n".join("\n".join([f"{title}:", *lines]) for title, lines in parts.items())


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
            return run_cells(stage, configs, console(), command)
        except CellsFailedError as failure:
            return failure.outcome

    return act_on_cells(stage, arguments, run)
