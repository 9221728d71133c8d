"""The one line of an exception that a status keeps: what went wrong, and neither hints nor a trace of calls."""

from __future__ import annotations

import re
import signal
import traceback
from itertools import pairwise
from pathlib import Path

from trainlarge.errors import UserError

MOST_CHARACTERS = 400
"""Length of a line; a compiler's command takes thousands."""
_TRACE = re.compile(r"^.*\bTraceback\b.*\(most recent call last\)", re.MULTILINE)
_DETAIL = re.compile(r"^(?:Last error|Output):$", re.IGNORECASE)
"""What a library puts above the text that another program gave it: NCCL, a compiler, a launcher of processes."""
_SAYS_NOTHING = re.compile(
    r"^(?:"
    r"Search for `\w+' in https?://"
    r"|CUDA kernel errors might be asynchronously reported"
    r"|For debugging consider passing"
    r"|Compile with `\w+_USE_\w+_DSA`"
    r"|-- Process \d+ terminated with the following (?:error|exception)"
    r"|\W*$"
    r")"
)

_HINTS: dict[int, str] = {
    signal.SIGKILL: "out of memory?",
    signal.SIGBUS: "a full disk or full shared memory?",
    signal.SIGSEGV: "a fault of a library, not of this program",
    signal.SIGILL: "a library built for another processor?",
}


def error_line(error: BaseException) -> str:
    """``RuntimeError: CUDA error: device-side assert triggered``: kind and message of an exception, on one line.

    Of a message of several lines it is the first that says something; where a library wraps the traceback of another
    process or the output of another program, it is what that ended with. A group of exceptions is told by its first
    one. An exception that was raised from another one names that too, and one without a message its place in the code.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, BaseExceptionGroup):
        others = f" (and {len(error.exceptions) - 1} more)" if len(error.exceptions) > 1 else ""
        return _shortened(f"{error_line(error.exceptions[0])}{others}")
    message = _message(str(error))
    line = f"{type(error).__name__}: {message}" if message else f"{type(error).__name__}{_place(error)}"
    cause = error.__cause__
    if cause is not None and (said := _message(str(cause))) and said not in line:
        line += f" (from {type(cause).__name__}: {said})"
    return _shortened(line)


def ended_in_words(status: int) -> str:
    """How a process ended: ``was killed by SIGKILL (out of memory?)``.

    Args:
        status: as subprocess and multiprocessing have it: negative for a signal.
    """
    if status >= 0:
        return f"ended with status {status}"
    hint = _HINTS.get(-status)
    return f"was killed by {signal_name(-status)}{f' ({hint})' if hint else ''}"


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; the number where it has no name, as those of real time."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _message(text: str) -> str:
    """The line of a message that says something; empty where none does."""
    *_, after_trace = _TRACE.split(text)
    # The frames of a trace, with their lines of code, are indented; what follows is not.
    is_trace = after_trace is not text
    lines = [line for line in after_trace.splitlines() if not (is_trace and line.startswith((" ", "\t")))]
    said = [line.strip() for line in lines if not _SAYS_NOTHING.match(line.strip())]
    for first, second in pairwise(said):
        if _DETAIL.match(first):
            return f"{_sentence(said)} ({second})"
    return _sentence(said)


def _sentence(said: list[str]) -> str:
    """The first line, with those that it announces by a colon."""
    words: list[str] = []
    for line in said:
        words.append(line)
        if not line.endswith(":"):
            break
    return " ".join(words)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    return f" in {last.name} ({Path(last.filename).name}, line {last.lineno})"


def _shortened(line: str) -> str:
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 4]} ..."
