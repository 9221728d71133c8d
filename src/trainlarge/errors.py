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
        text = _one_line(allowed)
        sentence = text if text.startswith(("must ", "no such ")) else f"must be {text}"
        # Keys of a group are those of YAML, where None is null; others may be arguments of a Python function.
        shown = "null" if value is None and "." in key else _one_line(value)
        super().__init__(f"{key}={shown} is not valid: {sentence}")

    def __reduce__(self) -> tuple[type[UserError], tuple[str, object, str]]:
        return type(self), (self.key, self.value, self.allowed)


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


def _one_line(value: object) -> str:
    """The value as a user would write it: a tuple as a list."""
    value = list(value) if isinstance(value, tuple) else value
    return " ".join(str(value).split())
