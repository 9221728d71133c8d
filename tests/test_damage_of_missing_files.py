"""Every kind of file in a study is cut in half or removed; then users' commands run on the study.

A file of its own, so that it runs next to ``test_damage.py``, which says more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from damaged import Lab, Shell, check_damages

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.mark.parametrize("how", ["truncated", "removed"])
def test_every_kind_of_file_is_healed_or_told(lab: Lab, shell: Shell, tmp_path: Path, how: str) -> None:
    check_damages([(kind, how) for kind in lab.files()], lab, tmp_path, shell)
