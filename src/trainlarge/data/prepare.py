"""From a corpus to a tokenizer and token files, built once and kept by content."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from tokenizers import Tokenizer

from trainlarge.config.data import SPLITS, DataConfig, Split
from trainlarge.data.arrays import TokenDtype, Tokens
from trainlarge.data.corpus import Corpus, corpus, reader_version
from trainlarge.data.document_keys import Hashes, open_keys, write_keys
from trainlarge.data.facts import TextFacts, write_splits
from trainlarge.data.fingerprint import fingerprint
from trainlarge.data.kept import FileDigest, check_digest, damage_named, kept
from trainlarge.data.meta import TextMeta, Versions, read_meta, write_meta
from trainlarge.data.mixture import Mixture, named
from trainlarge.data.model_tokenizer import ModelTokenizer
from trainlarge.data.progress import PROGRESS, Meter
from trainlarge.data.text import TextFiles
from trainlarge.data.tokenizer import (
    CLS_ID,
    FIRST_REGULAR_ID,
    MASK_ID,
    PAD_ID,
    SEP_ID,
    TOKENIZER,
    load_tokenizer,
    train_tokenizer,
)
from trainlarge.data.tokens import TokenCounts, id_dtype, open_tokens
from trainlarge.errors import UserError
from trainlarge.sweep.digest import file_digest
from trainlarge.sweep.records import TextRow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedData:
    """Tokenizer and tokens of a corpus, ready to train on."""

    folder: Path
    """Its files."""
    fingerprint: str
    """Content fingerprint of the corpus."""
    tokenizer_file: Path
    """``tokenizer.json``, for ``load_tokenizer`` and ``hugging_face_tokenizer``."""
    vocab_size: int
    """Entries of the tokenizer."""
    train: Tokens
    """Ids of the training split, shape [tokens], uint16 or uint32."""
    validation: Tokens
    """Ids of the validation split, shape [tokens], uint16 or uint32."""
    facts: TextFacts | None = None
    """Rows without text, and what both splits have in common; None where it was prepared before that was counted."""
    training_keys: Hashes | None = None
    """Short key of each different training document, ascending; None where it was prepared before they were kept,
    or where rows have labels."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """Tokens of each of ``data.sources`` in ``train``, where they stand one source after the other."""
    pad_id: int = PAD_ID
    """Id of ``[PAD]``."""
    cls_id: int = CLS_ID
    """Id of ``[CLS]``."""
    sep_id: int = SEP_ID
    """Id of ``[SEP]``."""
    mask_id: int = MASK_ID
    """Id of ``[MASK]``."""
    first_regular_id: int = FIRST_REGULAR_ID
    """First id that may be put in the place of a masked one."""
    unknown_id: int = MASK_ID
    """Id as which a token is read that a smaller vocabulary has not: our tokenizers have no unknown token."""
    special_ids: frozenset[int] = frozenset(range(FIRST_REGULAR_ID))
    """Ids of all special tokens."""

    @property
    def repeated_share(self) -> float | None:
        """Share of the validation rows that are trained on, too; None where rows are no units of their own."""
        return None

    def text_rows(self) -> list[TextRow]:
        """What was read and written of each text; nothing where it was prepared before that was counted."""
        return self.facts.text_rows() if self.facts else []


P = TypeVar("P", bound=PreparedData)


def prepare(data: DataConfig, root: Path, of_model: ModelTokenizer | None = None) -> PreparedData:
    """Prepared data of a ``data`` group, built below ``root`` unless it is there already.

    Any number of processes may call it at the same time: one builds, the others wait for it. A builder that dies
    leaves nothing that is taken for prepared data, and data that is damaged is built again. Where ``data.fingerprint``
    is frozen and its data was prepared before, the text itself is not needed.

    Args:
        data: the group.
        root: folder in which prepared data is kept.
        of_model: reads the text, whatever ``data.vocab_size`` is; None: a tokenizer is trained on it.

    Raises:
        UserError: a setting is wrong, a file cannot be read, a split is empty, or the text is no longer the one whose
            fingerprint was frozen while its prepared data is damaged or not there.
        filelock.Timeout: another process has been building the same data for hours.
    """
    found = prepared_silently(data, root, of_model)
    for line in found.facts.lines() if found.facts else ():
        log.info("%s", line)
    return found


def prepared_silently(data: DataConfig, root: Path, of_model: ModelTokenizer | None = None) -> PreparedData:
    """As ``prepare``; what it found out about the text is not logged."""
    content = data.fingerprint or fingerprint(data)
    reader = reader_version(data)
    if of_model is None:
        vocab_size, key = data.vocab_size, prepared_key(content, data.vocab_size, reader)
    else:
        vocab_size, key = of_model.vocab_size, model_key(content, of_model, reader)

    def build(folder: Path) -> None:
        check_text(data, content)
        _build(corpus(data), vocab_size, content, folder, of_model)

    prepared = kept(root / key, lambda folder: load_prepared(folder, content, vocab_size), build)
    return prepared if of_model is None else with_ids_of(prepared, of_model)


def with_ids_of(prepared: P, tokenizer: ModelTokenizer) -> P:
    """Prepared data with the ids of a model's tokenizer; any token may take the place of a masked one, as in BERT."""
    return replace(
        prepared,
        pad_id=tokenizer.pad_id,
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
        mask_id=tokenizer.sep_id if tokenizer.mask_id is None else tokenizer.mask_id,
        unknown_id=tokenizer.unknown_id,
        special_ids=tokenizer.special_ids,
        first_regular_id=tokenizer.first_regular_id,
    )


def prepared_key(content: str, vocab_size: int, reader: int) -> str:
    """Folder name, 16 hex digits, of the data with that fingerprint and vocabulary size.

    Args:
        reader: version of the corpus's reader. What another one prepared is not used, since it may have read the same
            files in another way.
    """
    return _hashed(f"{reader} {content} {vocab_size}")


def model_key(content: str, tokenizer: ModelTokenizer, reader: int) -> str:
    """As ``prepared_key``, of data that a model's own tokenizer reads."""
    return _hashed(f"{reader} {content} {tokenizer.digest} {tokenizer.sep_id}")


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_prepared(folder: Path, fingerprint: str | None = None, vocab_size: int | None = None) -> PreparedData:
    """Prepared data of a folder that ``prepare`` has made, each file compared with the digest that was kept of it.

    Args:
        folder: its folder.
        fingerprint: what its ``meta.json`` must say; None: anything.
        vocab_size: what its ``meta.json`` must say; None: anything.

    Raises:
        DamagedDataError: the folder is damaged.
    """
    with damage_named(folder):
        meta = read_meta(TextMeta, folder, fingerprint, vocab_size)
        train, validation = (
            _open_split(_token_file(folder, split), counts, meta.dtype)
            for split, counts in zip(SPLITS, (meta.train, meta.validation), strict=True)
        )
        keys = open_keys(folder, meta.training_keys)
    sources = {name: source.train.tokens for name, source in meta.sources.items()}
    tokenizer = folder / TOKENIZER
    return PreparedData(
        folder, meta.fingerprint, tokenizer, meta.vocab_size, train, validation, meta.facts, keys, sources
    )


def _open_split(path: Path, counts: TokenCounts, dtype: TokenDtype) -> Tokens:
    check_digest(path, counts.sha256)
    tokens = open_tokens(path, dtype)
    if len(tokens) != counts.tokens:
        raise ValueError(f"{path.stem} has {len(tokens)} tokens instead of {counts.tokens}")
    return tokens


def _build(source: Corpus, vocab_size: int, content: str, folder: Path, of_model: ModelTokenizer | None) -> None:
    meter = Meter(folder / PROGRESS, source.text_bytes if isinstance(source, TextFiles | Mixture) else None)
    tokenizer = kept_tokenizer(folder, meter.of("tokenizer", source.documents("train")), vocab_size, of_model)
    sep_id = SEP_ID if of_model is None else of_model.sep_id
    files = {split: _token_file(folder, split) for split in SPLITS}
    facts, keys = write_splits(files, source, tokenizer, id_dtype(vocab_size), sep_id, meter)
    meter.end()
    meta = TextMeta(
        fingerprint=content,
        vocab_size=vocab_size,
        dtype=id_dtype(vocab_size),
        versions=Versions(),
        tokenizer=FileDigest(file_digest(folder / TOKENIZER)),
        train=facts.train,
        validation=facts.validation,
        rows=facts.rows,
        overlap=facts.overlap,
        sources=facts.sources,
        training_keys=write_keys(folder, keys),
    )
    write_meta(folder, meta)


def kept_tokenizer(folder: Path, texts: Iterable[str], vocab_size: int, of_model: ModelTokenizer | None) -> Tokenizer:
    """The tokenizer of prepared data, which it puts into ``folder``: trained on the texts, or that of a model."""
    if of_model is None:
        train_tokenizer(texts, vocab_size).save(str(folder / TOKENIZER))
    else:
        shutil.copyfile(of_model.file, folder / TOKENIZER)
    return text_tokenizer(folder / TOKENIZER)


def text_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer at ``path``, which reads whole documents."""
    tokenizer = load_tokenizer(path)
    # A tokenizer of a model may be set to cut long texts, or to fill short ones up.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def check_text(data: DataConfig, content: str) -> None:
    """Refuse a text that is not the one with that fingerprint, or that leaves a split empty."""
    current = fingerprint(data)
    if current != content:
        raise UserError("data.fingerprint", content, f"{current}: the text has changed since the cell was frozen")
    for key, text in data.texts().items():
        with named(key):
            _check_splits(text)


def _check_splits(data: DataConfig) -> None:
    source = corpus(data)
    for split in SPLITS:
        if next(source.documents(split), None) is None:
            key = next(key for key in ("files", "hub", "name") if getattr(data, key))
            remedy = "(use more text, another data.validation_share, or validation_files)"
            allowed = f"enough text for both splits: none is left for {split} {remedy}"
            raise UserError(f"data.{key}", getattr(data, key), allowed)


def _token_file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.bin"
