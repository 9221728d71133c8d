"""How many CPU cores a process may use."""

from __future__ import annotations

import os

from trainlarge.errors import UserError

CORES = "TRAINLARGE_CORES"
"""The variable by which a user limits the cores of a command; this program never sets it."""


def cores_here() -> int:
    """Cores that this process may use: what ``$TRAINLARGE_CORES`` says, else those that the system lets it run on.

    Raises:
        UserError: for a variable that is no number of cores.
    """
    said = os.environ.get(CORES)
    if not said:
        return len(os.sched_getaffinity(0))
    if not said.isdecimal() or int(said) < 1:
        raise UserError(CORES, said, "a whole number of at least 1, or unset")
    return int(said)
