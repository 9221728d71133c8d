"""What shares one scale: a whole matrix, a row of it, or a group of weights of a row."""

from __future__ import annotations

from typing import Literal, Protocol

from trainlarge.config.method import normalize

Granularity = Literal["tensor", "row", "channel", "group"]
"""What shares one scale. ``channel`` is another word for ``row``: the first dimension holds the output channels."""
GROUP_SIZE = 64
"""Weights of a group where none is given."""


class HasGranularity(Protocol):
    """A method with a field ``granularity``."""

    @property
    def granularity(self) -> str:
        """What shares one scale."""


class HasGroups(HasGranularity, Protocol):
    """A method with the fields ``granularity`` and ``group_size``, which ``Method`` can check."""

    @property
    def group_size(self) -> int | None:
        """Weights of a group."""

    def require_one_of(self, name: str, *values: str) -> None:
        """As in ``Method``."""

    def require_whole(self, name: str, least: int, most: int | None = None, further: str = "") -> None:
        """As in ``Method``."""


def check_granularity(method: HasGroups) -> None:
    """Raise UserError unless granularity and group size are valid.

    Both are brought to their standard form: ``row`` for ``channel``, and a group size only where there are groups.
    """
    normalize_channel(method)
    method.require_one_of("granularity", "tensor", "row", "group")
    if method.group_size is not None:
        method.require_whole("group_size", 1)
    size = GROUP_SIZE if method.group_size is None else int(method.group_size)
    normalize(method, group_size=size if method.granularity == "group" else None)


def normalize_channel(method: HasGranularity) -> None:
    """Per-channel quantization is per row: the output channels are the first dimension. Both words have one id."""
    if method.granularity == "channel":
        normalize(method, granularity="row")


def groups_text(method: HasGroups) -> str:
    """Such as ``row`` or ``group 64``."""
    return f"group {method.group_size}" if method.group_size else method.granularity
