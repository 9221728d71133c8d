"""Types of the arrays that data is held in."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Tokens = NDArray[np.unsignedinteger]
"""Ids of a token file, uint16 or uint32 [tokens], or blocks of them."""
TokenDtype = Literal["<u2", "<u4"]
"""Type of the ids in a token file, as NumPy names it."""
