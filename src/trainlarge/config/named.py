"""Groups that a user names: the values of a key such as ``data.sources``, which is a mapping from names to groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from trainlarge.config.group import Group
from trainlarge.errors import UserError

G_co = TypeVar("G_co", bound=Group, covariant=True)
_MOST_LETTERS = 40


class Named(Mapping[str, G_co]):
    """Name -> group, in the order in which a user wrote them; never changed, and so hashable like the groups."""

    def __init__(self, groups: Mapping[str, G_co] | None = None) -> None:
        self._groups = dict(groups or {})

    def __getitem__(self, name: str) -> G_co:
        return self._groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def __hash__(self) -> int:
        return hash(tuple(self._groups.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and tuple(self.items()) == tuple(other.items())

    def __repr__(self) -> str:
        return f"Named({self._groups})"


def check_names(key: str, groups: Named[Group], taken: frozenset[str] = frozenset()) -> None:
    """Refuse names that cannot begin the name of a column.

    Args:
        key: key of the configuration that holds the groups.
        groups: by their names.
        taken: names that columns have begun with before.

    Raises:
        UserError: naming the key and the name.
    """
    for name in groups:
        is_name = name.isascii() and name.isidentifier() and name == name.lower() and len(name) <= _MOST_LETTERS
        if not is_name:
            allowed = f"small letters, digits and _, a letter first, at most {_MOST_LETTERS} characters"
            raise UserError(key, name, f"a mapping from names to groups; a name has {allowed}")
        if name in taken:
            raise UserError(key, name, "another name: there are other columns whose names begin with it")
