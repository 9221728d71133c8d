"""Groups of a configuration from the few keys that a test is about."""

from __future__ import annotations

from typing import Any

from trainlarge.config.data import DataConfig
from trainlarge.config.plain import from_plain


def data_group(keys: dict[str, Any]) -> DataConfig:
    """The group ``data`` of a cell that has these keys, as a file would give them."""
    return from_plain(DataConfig, keys, "data")
