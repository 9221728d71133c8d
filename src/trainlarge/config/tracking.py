"""What the group ``tracking`` may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainlarge.errors import UserError

CHOICES = {"name": ("none", "wandb"), "mode": ("offline", "online")}
"""Key -> its values."""


def check_tracking(tracking: Mapping[str, Any]) -> None:
    """Refuse a mirror that there is not.

    Raises:
        UserError: for an unknown ``tracking.name`` or ``tracking.mode``.
    """
    for key, allowed in CHOICES.items():
        if tracking[key] not in allowed:
            raise UserError(f"tracking.{key}", tracking[key], ", ".join(allowed))
