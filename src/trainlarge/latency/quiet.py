"""Without what libraries tell developers of their own: deprecations, missing extensions, advice."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """While the block runs, no warning is shown, neither by ``warnings`` nor by ``logging``; errors are raised."""
    root, before = logging.getLogger(), logging.root.manager.disable
    # The first message of the root logger gives it a handler, by which all later ones would be printed twice.
    nowhere = logging.NullHandler()
    root.addHandler(nowhere)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        root.removeHandler(nowhere)
