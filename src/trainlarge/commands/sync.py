"""``trainlarge sync``: bring a mirror of a study up to date."""

from __future__ import annotations

import argparse
import time
from typing import cast

from trainlarge.commands.call import Call
from trainlarge.commands.status import read_state
from trainlarge.commands.studies import existing_study
from trainlarge.commands.verbs import verb_parser
from trainlarge.config.group import Plain
from trainlarge.config.plain import from_plain
from trainlarge.config.tracking import TrackingConfig
from trainlarge.errors import UserError
from trainlarge.sweep.store import Study
from trainlarge.tracking.mirror import mirror_study, tracker_class

DEFAULT = "wandb"
WATCH_SECONDS = 30.0
"""Time between two looks for cells that are done."""


def main(call: Call) -> int:
    """Write the runs that the mirror does not have yet, once or until all cells are done."""
    options = parser().parse_args(call.arguments)
    config, study = _config(options), existing_study(options.study)
    _write(study, config)
    while options.watch and not read_state(study).is_done:
        time.sleep(WATCH_SECONDS)
        _write(study, config)
    return 0


def _write(study: Study, config: TrackingConfig) -> None:
    written = mirror_study(study, config)
    print(f"{written} runs written to {tracker_class(config).label}", flush=True)


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("sync")
    made.add_argument("study")
    made.add_argument(
        "keys",
        nargs="*",
        default=(),
        metavar="KEY=VALUE",
        help="tracking=NAME, tracking.KEY=VALUE",
    )
    made.add_argument("--watch", action="store_true", help="write runs as their cells are done, until all are")
    made.add_argument("--online", action="store_true", help="tracking.mode=online: upload, instead of writing files")
    made.add_argument("--project", help="tracking.project=PROJECT")
    made.add_argument("--entity", help="tracking.entity=ENTITY")
    return made


def _config(options: argparse.Namespace) -> TrackingConfig:
    """The tracker that the arguments describe.

    Raises:
        UserError: for a key or a value that it cannot have.
    """
    flags = {"mode": "online" if options.online else None, "project": options.project, "entity": options.entity}
    values: dict[str, Plain] = {"name": DEFAULT, **{key: value for key, value in flags.items() if value is not None}}
    for text in options.keys:
        key, _, value = text.partition("=")
        if key != "tracking" and not key.startswith("tracking."):
            raise UserError(key, value, "tracking=NAME or tracking.KEY=VALUE")
        values["name" if key == "tracking" else key.removeprefix("tracking.")] = value
    config = cast(TrackingConfig, from_plain(TrackingConfig.kind(values), values, TrackingConfig.key))
    if config.written_by is None:
        raise UserError("tracking", config.name, "a mirror that is written")
    return config
