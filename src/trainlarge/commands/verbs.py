"""The verbs of the command line: what each does, where its code is, and the parser that it makes of its arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

USER_ERROR_STATUS = 2


@dataclass(frozen=True)
class Verb:
    """What ``trainlarge <name>`` is."""

    module: str
    """Its module in ``commands/``, which has a function ``main``."""
    does: str
    """What it does; its help begins with that."""


VERBS = {
    "train": Verb("stage", "train a cell, or with -m a sweep of them"),
    "compress": Verb("stage", "compress a checkpoint, or with -m a sweep of recipes"),
    "run": Verb("run", "run all sweeps of a study in their order, then write its report"),
    "plan": Verb("plan", "say what a command would do: cells, jobs, FLOPs, time, space; nothing runs"),
    "ls": Verb("ls", "list all studies, or the cells of one with loss, size and id"),
    "status": Verb("status", "show where a study stands: states, progress, failures, what to do next"),
    "show": Verb("show", "show a cell: configuration, record, log, and the command that runs it again"),
    "redo": Verb("redo", "run a cell again from its frozen configuration, as when a file is damaged"),
    "report": Verb("report", "write the report of a study"),
    "latency": Verb("latency", "measure how fast cells compute on this machine, by each runtime"),
    "sync": Verb("sync", "bring the mirror of a study up to date"),
    "export": Verb("export", "write a cell's model and tokenizer as a Hugging Face folder"),
    "clean": Verb("clean", "show, or with --yes free, the space of what a study needs no more"),
    "completion": Verb("completion", "print the script by which a shell completes verbs, studies, cells and keys"),
}


class VerbParser(argparse.ArgumentParser):
    """Parses the arguments of a verb. A mistake is one line, as every other error of the command line."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and exit."""
        print(f"error: {self.prog}: {message} ({self.prog} --help)", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)


def verb_parser(verb: str, parents: Sequence[argparse.ArgumentParser] = (), epilog: str | None = None) -> VerbParser:
    """The parser of a verb, which has no arguments yet but those of ``parents``."""
    does = VERBS[verb].does
    description = f"{does[0].upper()}{does[1:]}."
    return VerbParser(
        prog=f"trainlarge {verb}",
        description=description,
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=epilog,
    )
