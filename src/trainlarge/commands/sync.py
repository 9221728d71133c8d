"""``trainlarge sync``: bring a mirror of a study up to date."""

from __future__ import annotations

import argparse
from typing import cast

from trainlarge.commands.call import Call
from trainlarge.commands.studies import existing_study
from trainlarge.commands.verbs import verb_parser
from trainlarge.config.group import Plain
from trainlarge.config.plain import from_plain
from trainlarge.config.tracking import TrackingConfig
from trainlarge.errors import UserError
from trainlarge.tracking.mirror import mirror_study, tracker_class

DEFAULT = "wandb"


def main(call: Call) -> int:
    """Write the runs that the mirror does not have yet."""
    options = parser().parse_args(call.arguments)
    config = _config(options)
    written = mirror_study(existing_study(options.study), config)
    print(f"{written} runs written to {tracker_class(config).label}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("sync")
    made.add_argument("study")
    made.add_argument(
        "keys",
        nargs="*",
        metavar="KEY=VALUE",
        help="tracking=NAME, tracking.KEY=VALUE",
    )
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
