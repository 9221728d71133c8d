"""What is written for readers: the page, its sentences, figures and tables."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def _import_matplotlib(backend: str) -> None:
    """Import it though ``MPLBACKEND`` may name no backend, which its own import fails on: figures here need none."""
    del os.environ["MPLBACKEND"]
    try:
        import matplotlib
    finally:
        os.environ["MPLBACKEND"] = backend
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = backend


if "matplotlib" not in sys.modules and os.environ.get("MPLBACKEND"):
    _import_matplotlib(os.environ["MPLBACKEND"])
