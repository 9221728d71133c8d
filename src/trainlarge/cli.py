"""``trainlarge``: hands a command line to its verb. A verb is a module of ``commands/``, imported when it is called."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from trainlarge.commands.call import Call
from trainlarge.commands.shown import visible_streams
from trainlarge.commands.verbs import USER_ERROR_STATUS, VERBS, VerbParser
from trainlarge.errors import UserError
from trainlarge.launch.safe_path import leave_working_directory
from trainlarge.machine.environment import check_interpreter, draw_without_screen, hide_library_progress_bars
from trainlarge.machine.provenance import code, software

INTERRUPTED_STATUS = 130
NOT_READ_STATUS = 141
"""That of a program which the signal SIGPIPE ends."""


@visible_streams()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        Exit status: 0 all is done, 1 cells failed, 2 the user must change something, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = "--debug" in given
    hide_library_progress_bars()
    draw_without_screen()
    try:
        check_interpreter()
        with _messages_on_stderr():
            return _run([argument for argument in given if argument != "--debug"])
    except KeyboardInterrupt:
        print("stopped; the same command continues from here", file=sys.stderr)
        return INTERRUPTED_STATUS
    except BrokenPipeError:
        # Who reads what is printed has seen enough, as `head` has. Python would complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_READ_STATUS
    except (UserError, OSError) as error:
        if is_debug:
            raise
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return USER_ERROR_STATUS


@contextmanager
def _messages_on_stderr() -> Iterator[None]:
    """Print log messages on standard error: standard output may be what another program reads."""
    logger, handler = logging.getLogger("trainlarge"), logging.StreamHandler(sys.stderr)
    before, raises = logger.level, logging.raiseExceptions
    # A message that nobody reads any more, as behind `head`, is no error.
    logging.raiseExceptions = False
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logging.raiseExceptions = raises


def _run(arguments: list[str]) -> int:
    if "--version" in arguments:
        print(_versions())
        return 0
    if not arguments or arguments[0] not in VERBS:
        # Prints help, the version, or what is wrong, and exits.
        _parser().parse_args(arguments or ["--help"])
    verb, *rest = arguments
    return int(import_module(f"trainlarge.commands.{VERBS[verb].module}").main(Call(verb, tuple(rest))))


def _versions() -> str:
    known, (commit, dirty) = {**software()}, code()
    checkout = f" (commit {commit[:12]}{', changed since' if dirty else ''})" if commit else ""
    own = f"trainlarge {known.pop('trainlarge')}{checkout}"
    return "\n".join([own, *(f"{name} {number}" for name, number in known.items())])


def _parser() -> VerbParser:
    parser = VerbParser(
        prog="trainlarge",
        description="How large should I train, for how long, and how far should I compress it?",
        epilog="Studies are in studies/ of the working directory, or in the folder that TRAINLARGE_STUDIES names. "
        "'trainlarge VERB --help' says more of a verb.",
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="store_true", help="print the versions of trainlarge and what it uses")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, verb in VERBS.items():
        verbs.add_parser(name, help=verb.does)
    return parser


if __name__ == "__main__":
    leave_working_directory()
    sys.exit(main())
