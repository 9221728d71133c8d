"""``trainlarge sync``: bring the mirror of a study up to date."""

from __future__ import annotations

import argparse

from trainlarge.commands.call import Call
from trainlarge.commands.studies import existing_study
from trainlarge.tracking.mirror import mirror_study


def main(call: Call) -> int:
    """Write the runs that the mirror does not have yet."""
    options = parser().parse_args(call.arguments)
    tracking = {"name": "wandb", "mode": "online" if options.online else "offline"}
    target = {**tracking, "project": options.project, "entity": options.entity}
    written = mirror_study(existing_study(options.study), target)
    print(f"{written} runs written to Weights & Biases")
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = argparse.ArgumentParser(prog="trainlarge sync", description=__doc__)
    made.add_argument("study")
    made.add_argument("--online", action="store_true", help="upload; without this, runs are written below the study")
    made.add_argument("--project", default="trainlarge")
    made.add_argument("--entity")
    return made
