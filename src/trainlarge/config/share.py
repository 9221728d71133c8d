"""Where ``conf/`` and ``sweeps/`` are: next to ``src`` in a checkout, inside the package in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from trainlarge.config.schema import CHOSEN_GROUPS

_PACKAGE = Path(__file__).resolve().parents[1]


def share_folder() -> Path:
    """The folder that holds ``conf/`` and ``sweeps/``."""
    checkout = _PACKAGE.parents[1]
    return checkout if (checkout / "conf" / "train.yaml").is_file() else _PACKAGE


def choices_of(group: str) -> list[str]:
    """The names that can be chosen for a group, in the order of the alphabet: files of ``conf/``, installed ones."""
    files = {path.stem for path in (share_folder() / "conf" / group).glob("*.yaml")}
    return sorted(files.union(CHOSEN_GROUPS[group].by_name() if group in CHOSEN_GROUPS else ()))


def has_file(group: str, name: str) -> bool:
    """Whether a choice of a group has a file of its own in ``conf/``."""
    return (share_folder() / "conf" / group / f"{name}.yaml").is_file()
