"""The study that a verb is about."""

from __future__ import annotations

from trainlarge.errors import UserError
from trainlarge.sweep.store import Study, studies_root


def existing_study(name: str) -> Study:
    """The study of that name.

    Raises:
        UserError: where there is none; it names those that there are.
    """
    study = Study.named(name)
    if not study.path.is_dir():
        known = sorted(path.name for path in studies_root().glob("[!.]*") if path.is_dir())
        raise UserError("study", name, f"a study in {studies_root()}: {', '.join(known) or 'there is none yet'}")
    return study
