"""Content fingerprint of a corpus: what the token files depend on, apart from the tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from functools import lru_cache

from trainlarge.config.data import DataConfig
from trainlarge.config.group import with_values
from trainlarge.data.corpus import Corpus, check_keys, corpus, evaluation_text
from trainlarge.data.mixture import named, trained_files
from trainlarge.data.text import TextFiles

HEX_DIGITS = 16


def resolved_data(data: DataConfig) -> DataConfig:
    """The ``data`` group of a new cell in full: the rule of the split, the one name of the encoding, the fingerprint.

    Raises:
        UserError: a key is set that the corpus does not read, or a file cannot be read.
    """
    check_keys(data)
    resolved = with_values(data, split=data.rule, encoding=data.codec)
    return with_values(
        resolved, fingerprint=fingerprint(resolved), evaluations_fingerprint=evaluations_fingerprint(resolved)
    )


def fingerprint(data: DataConfig) -> str:
    """First 16 hex digits of SHA-256 over the split rule and the contents of the corpus of a ``data`` group.

    Independent of where files are, of their names (for ``text``) and of their times. Files are read once per process
    and again only when their size or modification time changes, so calling it for every cell of a sweep is cheap.

    Raises:
        UserError: the ``data`` group is wrong or a file cannot be read.
    """
    return content_hash(corpus(data))


def content_hash(source: Corpus) -> str:
    """The fingerprint of a corpus: it is read once per process, and again only when its stamp changes."""
    return _stamped_fingerprint(source, source.stamp())


def evaluations_fingerprint(data: DataConfig) -> str | None:
    """First 16 hex digits of SHA-256 over names and contents of ``data.evaluations``; None where there are none.

    Raises:
        UserError: a file cannot be read, or is trained on.
    """
    if not data.evaluations:
        return None
    contents, trained = {}, trained_files(corpus(data))
    for name in data.evaluations:
        source = evaluation_text(data, name)
        with named(f"data.evaluations.{name}"):
            if isinstance(source, TextFiles):
                source.check_held_out(trained, "data.files")
            contents[name] = content_hash(source)
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:HEX_DIGITS]


@lru_cache(maxsize=1024)
def _stamped_fingerprint(source: Corpus, _stamp: Hashable) -> str:
    canonical = json.dumps(source.contents(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:HEX_DIGITS]
