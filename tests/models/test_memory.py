"""What keeping freed memory does to a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
from trainlarge.machine.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("no mallopt")
import torch
def touch():
    torch.ones(2**24)
for _ in range(40):
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    run = subprocess.run([sys.executable, "-c", COUNT_FAULTS, mode], capture_output=True, text=True, check=False)
    if "no mallopt" in run.stderr:
        pytest.skip("this C library has no mallopt")
    return int(run.stdout)


@pytest.mark.long
def test_blocks_are_used_again_without_a_page_fault() -> None:
    assert 10 * faults("keep") < faults("default")
