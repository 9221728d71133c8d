"""Texts beside the validation text on which cells are evaluated: ``data.evaluations``, read by a cell's tokenizer."""

from __future__ import annotations

import hashlib
import logging
from array import array
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainlarge.config import typed_json
from trainlarge.config.data import DataConfig
from trainlarge.data.arrays import TokenDtype, Tokens
from trainlarge.data.blocks import check_length
from trainlarge.data.corpus import HELD_OUT, evaluation_text, reader_version
from trainlarge.data.document_keys import Hashes, keyed, open_keys, write_keys
from trainlarge.data.facts import row_of
from trainlarge.data.fingerprint import HEX_DIGITS, evaluations_fingerprint
from trainlarge.data.kept import NOT_KEPT, FileDigest, check_digest, damage_named, kept
from trainlarge.data.mixture import named
from trainlarge.data.prepare import PreparedData, text_tokenizer
from trainlarge.data.rows import RowCounts
from trainlarge.data.text import TextFiles
from trainlarge.data.tokens import TokenCounts, id_dtype, open_tokens, write_tokens
from trainlarge.errors import UserError
from trainlarge.sweep.digest import file_digest
from trainlarge.sweep.records import TextRow
from trainlarge.sweep.sealed import read_sealed, write_sealed

log = logging.getLogger(__name__)

VERSION = 1
"""Raised when the same text would give other tokens for another reason than its reader's version."""
_TOKENS, _META = "text.bin", "text.json"


@dataclass(frozen=True)
class _TextMeta:
    """What is said of a folder with the tokens of one text."""

    text: TokenCounts
    rows: RowCounts
    dtype: TokenDtype
    keys: FileDigest = NOT_KEPT
    """Digest of the file of keys of the documents; there is none in data of an older version."""


class _Read(NamedTuple):
    """What is in a folder with the tokens of one text."""

    tokens: Tokens
    meta: _TextMeta
    keys: Hashes | None
    """``short_key`` of each document."""


@dataclass(frozen=True)
class EvaluationText:
    """One of ``data.evaluations``, ready to be evaluated on."""

    prepared: PreparedData
    """The prepared data of the cell with this text in the place of the validation text."""
    row: TextRow
    """What was read and written of it."""


def prepare_evaluations(data: DataConfig, prepared: PreparedData, root: Path) -> dict[str, EvaluationText]:
    """Each of ``data.evaluations``, read by the tokenizer of a cell.

    Built below ``root`` unless it is there already, once for all cells with the same tokenizer.

    Args:
        data: a frozen group.
        prepared: its prepared data, whose tokenizer reads the texts.
        root: folder in which prepared data is kept.

    Raises:
        UserError: a text cannot be read, has changed since the cell was frozen, or is shorter than a row.
    """
    return {name: _prepared(data, name, prepared, root) for name in data.evaluations}


def look_at_evaluations(data: DataConfig) -> None:
    """Refuse texts that cannot be read, or that hold no document.

    Raises:
        UserError: naming the key.
    """
    for name in data.evaluations:
        source = evaluation_text(data, name)
        with named(f"data.evaluations.{name}"):
            if isinstance(source, TextFiles):
                source.look()
            if next(source.documents(HELD_OUT), None) is None:
                raise UserError("data.files", list(data.evaluations[name].files), "files that hold text")


def _prepared(data: DataConfig, name: str, prepared: PreparedData, root: Path) -> EvaluationText:
    read = _read(data, name, prepared, root)
    with named(f"data.evaluations.{name}"):
        check_length(len(read.tokens), data.sequence_length)
    row = replace(
        row_of("evaluation", name, read.meta.text, read.meta.rows),
        trained_documents=_trained_documents(read.keys, prepared.training_keys),
    )
    if row.trained_documents:
        log.warning(
            "%s of %s documents of data.evaluations.%s stand in the training text too: the loss there is partly "
            "memorized",
            f"{row.trained_documents:,}",
            f"{row.documents:,}",
            name,
        )
    return EvaluationText(replace(prepared, validation=read.tokens), row)


def _trained_documents(keys: Hashes | None, trained: Hashes | None) -> int | None:
    """How many of the documents with these keys stand in the training text; None where that is not known."""
    return None if keys is None or trained is None else int(np.isin(keys, trained).sum())


def _read(data: DataConfig, name: str, prepared: PreparedData, root: Path) -> _Read:
    content = data.evaluations_fingerprint or evaluations_fingerprint(data)
    reader = reader_version(data.of(data.evaluations[name]))
    read_by = f"{file_digest(prepared.tokenizer_file)} {prepared.sep_id}"
    key = hashlib.sha256(f"evaluation {VERSION} {reader} {content} {name} {read_by}".encode()).hexdigest()[:HEX_DIGITS]
    return kept(root / key, _load, partial(_build, data, name, content, prepared))


def _build(data: DataConfig, name: str, content: str | None, prepared: PreparedData, folder: Path) -> None:
    current = evaluations_fingerprint(data)
    if current != content:
        allowed = f"{current}: a text has changed since the cell was frozen"
        raise UserError("data.evaluations_fingerprint", content, allowed)
    rows, dtype, source = RowCounts(), id_dtype(prepared.vocab_size), evaluation_text(data, name)
    keys = array("Q")
    with named(f"data.evaluations.{name}"):
        documents = keyed(source.documents(HELD_OUT, rows), keys)
        tokenizer = text_tokenizer(prepared.tokenizer_file)
        counts = write_tokens(folder / _TOKENS, documents, tokenizer, dtype, prepared.sep_id)
    meta = _TextMeta(counts, rows, dtype, write_keys(folder, np.array(keys, np.uint64)))
    write_sealed(folder / _META, typed_json.plain(meta))
    log.info("data: %s: %s documents to evaluate on, %s tokens", name, f"{counts.documents:,}", f"{counts.tokens:,}")


def _load(folder: Path) -> _Read:
    with damage_named(folder):
        meta = typed_json.read(_TextMeta, read_sealed(folder / _META))
        check_digest(folder / _TOKENS, meta.text.sha256)
        # An empty file cannot be mapped into memory.
        tokens = open_tokens(folder / _TOKENS, meta.dtype) if meta.text.tokens else np.empty(0, meta.dtype)
        return _Read(tokens, meta, open_keys(folder, meta.keys))
