"""Python processes that import nothing from the working directory.

``python -c`` (as which the fork server of multiprocessing starts), ``python -m`` and an empty entry in ``PYTHONPATH``
(as ``export PYTHONPATH=$PYTHONPATH:/more`` leaves it) put the working directory on ``sys.path``, before the standard
library. A ``random.py`` that is there by chance would be run by every job.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from trainlarge.machine.environment import variables

SAFE = "PYTHONSAFEPATH"
"""The variable that keeps Python from adding the working directory, or the folder of a script, to ``sys.path``."""
SEARCHED = "PYTHONPATH"
SAFE_PYTHON = "-P"
"""The option of the same meaning, of Python 3.11 and later."""
SHELL_LINES = (
    f'{SEARCHED}=$(tr -s : <<< "${{{SEARCHED}-}}"); {SEARCHED}=${{{SEARCHED}#:}}',
    f"export {SAFE}=1 {SEARCHED}=${{{SEARCHED}%:}}",
)
"""What gives a bash script the variables of ``safe_environment``."""
_HOME = str(Path(__file__).resolve().parents[2])


def safe_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` for a Python process that is to import nothing from the working directory.

    Entries of ``PYTHONPATH`` stay, relative ones too, but for empty ones.
    """
    entries = [entry for entry in environment.get(SEARCHED, "").split(os.pathsep) if entry]
    return {**environment, SAFE: "1", SEARCHED: os.pathsep.join(entries)}


@contextmanager
def safe_children() -> Iterator[None]:
    """Processes that multiprocessing starts in this block, with their children, have a safe path.

    The fork server, which the first start of a process starts, and its jobs are given both the environment and
    ``sys.path`` of this process.
    """
    path, safe = list(sys.path), safe_environment(os.environ)
    sys.path[:] = _safe(path)
    try:
        with variables({name: safe[name] for name in (SAFE, SEARCHED)}):
            yield
    finally:
        sys.path[:] = path


def leave_working_directory() -> None:
    """Take the working directory off the ``sys.path`` of this process; for the beginning of a program."""
    sys.path[:] = _safe(sys.path)


def _safe(path: list[str]) -> list[str]:
    """``path`` without the working directory, unless ``PYTHONPATH`` names it or trainlarge itself is there."""
    here = os.getcwd()  # noqa: PTH109
    named = {os.path.abspath(entry) for entry in os.environ.get(SEARCHED, "").split(os.pathsep) if entry}  # noqa: PTH100
    unwanted = {""} if here in named or here == _HOME else {"", here}
    return [entry for entry in path if entry not in unwanted]
