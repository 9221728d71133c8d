"""The one error class for everything a user can cause."""

from __future__ import annotations

from typing import Any


class UserError(ValueError):
    """A mistake in the configuration, the data or the command line, told in one line.

    The command line prints the line and exits with status 2, without a traceback.

    Args:
        key: the configuration key, option or file that is wrong, as the user writes it (``arch.heads``).
        value: what it was set to.
        allowed: what would have been right, as a noun phrase (``a divisor of arch.width=64: 1, 2, 4``).
    """

    def __init__(self, key: str, value: Any, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed
        super().__init__(f"{key}={_one_line(value)}: allowed is {_one_line(allowed)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.allowed)


def _one_line(value: Any) -> str:
    """The value as a user would write it: a tuple as a list."""
    value = list(value) if isinstance(value, tuple) else value
    return " ".join(str(value).split())
