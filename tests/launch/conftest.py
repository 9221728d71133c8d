"""What tests of launchers have in common."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from real_slurm import SLURM


@pytest.fixture(scope="module", params=["plain"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Folder of a running cluster that ``SLURM_CONF`` leads to; with ``accounting``, or ``plain`` without."""
    up, folder = SLURM / "up", Path(tempfile.mkdtemp(prefix="trainlarge-", dir="/tmp"))
    options = ["--accounting"] if request.param == "accounting" else []
    # Tests install no packages of the system, but where a machine is made for nothing else.
    options += [] if os.environ.get("CI") else ["--no-install"]
    started = subprocess.run([up, "-q", *options, folder], capture_output=True, text=True, timeout=300)
    if started.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        why = started.stderr.strip().splitlines()[-1:]
        pytest.skip(f"SLURM cannot be started here: {why}; with CI=1 its packages are installed (Debian, as root)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "etc" / "slurm.conf"))
        yield folder
    subprocess.run([SLURM / "down", "-q", "--wipe", folder], check=False, timeout=120)
