"""The study that a verb is about."""

from __future__ import annotations

from trainlarge.errors import UserError
from trainlarge.sweep.store import Study, studies_root


def all_studies() -> list[Study]:
    """The studies that there are, by their names."""
    root = studies_root()
    return [Study(path) for path in sorted(root.glob("[!.]*")) if path.is_dir()] if root.is_dir() else []


def existing_study(name: str) -> Study:
    """The study of that name.

    Raises:
        UserError: where there is none; it names those that there are.
    """
    study = Study.named(name)
    if not study.path.is_dir():
        known = ", ".join(each.name for each in all_studies())
        raise UserError("study", name, f"a study in {studies_root()}: {known or 'there is none yet'}")
    return study
