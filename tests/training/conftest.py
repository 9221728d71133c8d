"""What tests of training have in common."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

TwoRanks = Callable[[Sequence[str]], list[str]]


@pytest.fixture
def two_ranks() -> TwoRanks:
    """Runs Python with these arguments as both ranks of one group; what each printed. Fails where one of them does."""

    def run(arguments: Sequence[str]) -> list[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        processes = [
            subprocess.Popen(
                [sys.executable, *arguments],
                env=os.environ | place | {"RANK": rank},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in "01"
        ]
        told = [process.communicate(timeout=60) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], "\n".join(errors for _, errors in told)
        return [printed for printed, _ in told]

    return run
