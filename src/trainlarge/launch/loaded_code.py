"""What the fork server imports, once for all jobs that it starts: the code that runs them, and its commit.

A module that cannot be imported must not end the server, which would take all jobs along without a word: each job
raises the error instead, so that its cells keep it.
"""

from importlib import import_module

from trainlarge.launch.stage_runner import RUNNERS
from trainlarge.machine.environment import forget_enclosing_ranks
from trainlarge.machine.provenance import code

_failure: Exception | None = None


def raise_failure() -> None:
    """Raise what went wrong when the server started, if anything did."""
    if _failure:
        raise _failure


code()
forget_enclosing_ranks()
try:
    for _name in ("trainlarge.launch.worker", *RUNNERS.values()):
        import_module(_name)
except Exception as error:
    _failure = error
