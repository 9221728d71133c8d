"""The rule that says which documents train and which validate."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, get_args

from trainlarge.errors import UserError

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = get_args(Split)
DEFAULT_VALIDATION_SHARE = 0.05


def split_of(key: str, validation_share: float) -> Split:
    """Split of the document that ``key`` (its name or its text) stands for.

    The first 8 bytes of SHA-256 of the key, read as a number in [0, 1), fall below ``validation_share`` or not: no
    random state, no dependence on the other documents, and equal documents always fall on the same side.
    """
    head = hashlib.sha256(key.encode("utf-8")).digest()[:8]
    return "validation" if int.from_bytes(head, "big") < validation_share * 2**64 else "train"


def validation_share(data: dict[str, Any]) -> float:
    """``data.validation_share`` as a float in (0, 1).

    Raises:
        UserError: it is no number between 0 and 1.
    """
    share = data.get("validation_share", DEFAULT_VALIDATION_SHARE)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise UserError("data.validation_share", share, "a number above 0 and below 1")
    return float(share)
