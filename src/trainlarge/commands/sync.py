"""``trainlarge sync``: bring the mirror of a study up to date."""

from __future__ import annotations

import argparse
from typing import Literal

from trainlarge.commands.call import Call
from trainlarge.commands.studies import existing_study
from trainlarge.config.tracking import TrackingConfig
from trainlarge.tracking.mirror import mirror_study


def main(call: Call) -> int:
    """Write the runs that the mirror does not have yet."""
    options = parser().parse_args(call.arguments)
    mode: Literal["online", "offline"] = "online" if options.online else "offline"
    tracking = TrackingConfig("wandb", mode, options.project, options.entity)
    written = mirror_study(existing_study(options.study), tracking)
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
