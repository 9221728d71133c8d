"""``trainlarge report``: write the report of a study."""

from __future__ import annotations

import argparse

from trainlarge.commands.call import Call
from trainlarge.commands.studies import existing_study
from trainlarge.results.report.page import write_report
from trainlarge.sweep.store import Study


def main(call: Call) -> int:
    """Write the report of a study that exists."""
    print_report(existing_study(parser().parse_args(call.arguments).study))
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = argparse.ArgumentParser(prog="trainlarge report", description=__doc__)
    made.add_argument("study")
    return made


def print_report(study: Study) -> None:
    """Write the report of a study and print where it is."""
    print(f"report: {write_report(study)}")
