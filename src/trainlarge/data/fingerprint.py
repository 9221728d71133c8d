"""Content fingerprint of a corpus: what the token files depend on besides the tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from functools import lru_cache
from typing import Any

from trainlarge.data.corpus import Corpus, corpus

HEX_DIGITS = 16


def fingerprint(data: dict[str, Any]) -> str:
    """First 16 hex digits of SHA-256 over the split rule and the contents of the corpus of a ``data`` group.

    Independent of where files lie, of their names (for ``text``) and of their times. Files are read once per process
    and again only when their size or modification time changes, so calling it for every cell of a sweep is cheap.

    Raises:
        UserError: the ``data`` group is wrong or a file cannot be read.
    """
    source = corpus(data)
    return _stamped_fingerprint(source, source.stamp())


@lru_cache(maxsize=1024)
def _stamped_fingerprint(source: Corpus, _stamp: Hashable) -> str:
    canonical = json.dumps(source.contents(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:HEX_DIGITS]
