"""``trainlarge report``: write the report of a study."""

from __future__ import annotations

import argparse

from trainlarge.commands.call import Call
from trainlarge.commands.studies import existing_study
from trainlarge.commands.verbs import verb_parser
from trainlarge.sweep.store import Study


def main(call: Call) -> int:
    """Write the report of a study that exists."""
    print_report(existing_study(parser().parse_args(call.arguments).study))
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("report")
    made.add_argument("study")
    return made


def print_report(study: Study) -> None:
    """Write the report of a study and print where it is."""
    # Only now: a help text should not wait for pandas and matplotlib.
    from trainlarge.results.report.page import write_report

    print(f"report: {write_report(study)}")
