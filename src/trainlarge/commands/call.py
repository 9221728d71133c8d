"""One call of the program: a verb and what follows it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from trainlarge.sweep.secrets import text_without_secrets


@dataclass(frozen=True)
class Call:
    """What a verb is given."""

    verb: str
    """The verb."""
    arguments: tuple[str, ...]
    """What follows the verb on the command line."""

    @property
    def command(self) -> str:
        """The command line, as a study and its records keep it: without secrets."""
        return text_without_secrets(shlex.join(["trainlarge", self.verb, *self.arguments]))
