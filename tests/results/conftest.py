"""The made study, written once a session, and its frames."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainlarge.results.frames import StudyFrames, load_study
from trainlarge.sweep.store import Study

# Test folders are no packages, so the modules beside the tests are found by their folder.
sys.path.insert(0, str(Path(__file__).parent))

import made  # noqa: E402


@pytest.fixture(scope="session")
def made_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three shapes, four budgets, twenty-four recipes each; not to be changed."""
    return made.make_study(tmp_path_factory.mktemp("studies") / "made")


@pytest.fixture(scope="session")
def frames(made_study: Study) -> StudyFrames:
    """The frames of the made study; not to be changed."""
    return load_study(made_study)
