"""The one error class for everything a user can cause."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(ValueError):
    """A mistake in the configuration, the data or the command line, reported in one line.

    The line reads ``arch.heads=5 is not valid: must divide arch.width=64 (1, 2, 4, 8, ...)``. The command line prints
    it and exits with status 2, without a traceback.

    Args:
        key: the configuration key, option or file that is wrong, as the user writes it (``arch.heads``).
        value: what it was set to.
        allowed: what would have been right, as it reads after "must be": ``a number in [0, 1)``. A text that begins
            with "must" or "no such" (``must divide arch.width=64``, ``no such key: ...``) is printed as it is.
    """

    def __init__(self, key: str, value: object, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed
        text = shortened(_one_line(allowed), LONGEST_SENTENCE)
        sentence = text if text.startswith(("must ", "no such ")) else f"must be {text}"
        if isinstance(value, str) and value == NOT_SET:
            super().__init__(f"{key} is not set: {sentence}")
        else:
            # Keys of a group are those of YAML, where None is null; others may be arguments of a Python function.
            written = value if value is None and "." not in key else shown(value)
            super().__init__(f"{shown(key)}={written} is not valid: {sentence}")

    def __reduce__(self) -> tuple[type[UserError], tuple[str, object, str]]:
        return type(self), (self.key, self.value, self.allowed)


class UnknownChoiceError(UserError):
    """A name of a choice that there is not here: a package that adds it may not be installed."""


class CombinedUserError(UserError):
    """Several mistakes that were found at once, reported in one line each.

    Args:
        first: one of them, which gives key, value and what is allowed.
        lines: all of them.
    """

    def __init__(self, first: UserError, lines: Sequence[str]) -> None:
        super().__init__(first.key, first.value, first.allowed)
        self.first, self.lines = first, tuple(lines)
        self.args = ("\n".join(self.lines),)

    def __reduce__(self) -> tuple[type[CombinedUserError], tuple[UserError, tuple[str, ...]]]:  # type: ignore[override]
        return type(self), (self.first, self.lines)


NOT_SET = "???"
"""The value of a key that must be given and is not, as files of a configuration have it."""
LONGEST = 200
"""Characters of a value that an error shows."""
LONGEST_SENTENCE = 1200
"""Characters of what is allowed that an error shows: libraries repeat the value in what they say."""


def shown(value: object) -> str:
    """A value on one line as a user would write it: null, true, a tuple as a list; of a long one the beginning."""
    if isinstance(value, (list, tuple)):
        text = f"[{', '.join(map(_within_list, value[:LONGEST]))}]"
    elif value is None or isinstance(value, bool):
        text = "null" if value is None else str(value).lower()
    elif isinstance(value, int) and value.bit_length() > LONGEST:
        text = f"a whole number of {value.bit_length()} bits"
    else:
        text = str(value)
    return shortened(_one_line(text[: 10 * LONGEST]), LONGEST)


def shortened(line: str, most: int) -> str:
    """The line, or its beginning where it has more than ``most`` characters."""
    return line if len(line) <= most else f"{line[:most]}..."


def _within_list(value: object) -> str:
    return repr(value) if isinstance(value, str) else shown(value)


def _one_line(text: str) -> str:
    """Without line ends; what is a command for a terminal, or has no encoding, is escaped."""
    words = " ".join(text.split())
    return (
        words if words.isprintable() else "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in words)
    )
