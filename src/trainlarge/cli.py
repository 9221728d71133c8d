"""``trainlarge``: hands a command line to its verb. A verb is a module of ``commands/``, imported when it is called."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from trainlarge.commands.call import Call
from trainlarge.errors import UserError
from trainlarge.launch.safe_path import leave_working_directory
from trainlarge.machine.environment import hide_library_progress_bars

USER_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130

VERBS = {
    "train": ("stage", "train a cell, or with -m a sweep of them"),
    "compress": ("stage", "compress a checkpoint, or with -m a sweep of recipes"),
    "run": ("run", "all stages of a study, then its report"),
    "plan": ("plan", "what a command would do: cells, jobs, FLOPs, time, space; nothing runs"),
    "status": ("status", "where a study stands: states, progress, failures, what to do next"),
    "report": ("report", "write the report of a study"),
    "sync": ("sync", "bring the mirror of a study up to date"),
    "show": ("show", "configuration, record and log of a cell, and the command that runs it again"),
    "redo": ("redo", "run one cell again from its frozen configuration, as when a file is damaged"),
    "export": ("export", "write a cell's model and tokenizer as a Hugging Face folder"),
    "clean": ("clean", "free the space of saved states and leftovers that nothing needs any more"),
}
"""Verb -> its module in ``commands/``, which has a function ``main``, and what the verb does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        Exit status: 0 all is done, 1 cells failed, 2 the user must change something, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = "--debug" in given
    hide_library_progress_bars()
    try:
        with _messages_on_stderr():
            return _run([argument for argument in given if argument != "--debug"])
    except KeyboardInterrupt:
        print("stopped; the same command continues from here", file=sys.stderr)
        return INTERRUPTED_STATUS
    except (UserError, OSError) as error:
        if is_debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_STATUS


@contextmanager
def _messages_on_stderr() -> Iterator[None]:
    """Print log messages on standard error: standard output may be what another program reads."""
    logger, handler = logging.getLogger("trainlarge"), logging.StreamHandler(sys.stderr)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in VERBS:
        # Prints help, or what is wrong, and exits.
        _parser().parse_args(arguments)
    verb, *rest = arguments
    module, _ = VERBS[verb]
    return int(import_module(f"trainlarge.commands.{module}").main(Call(verb, tuple(rest))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trainlarge",
        description="How large should I train, for how long, and how far should I compress it?",
        epilog="Studies are in studies/ of the working directory, or in the folder that TRAINLARGE_STUDIES names.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb, (_, text) in VERBS.items():
        verbs.add_parser(verb, help=text)
    return parser


if __name__ == "__main__":
    leave_working_directory()
    sys.exit(main())
