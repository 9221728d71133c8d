"""Whether data can be prepared for a task, found in seconds and before any job starts. No torch.

Small data is prepared for good measure, in a folder that is then removed: nothing is left to find out. Of larger data
the first rows are read, by the readers of the real preparation. Data that was prepared before needs no look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory
from typing import TypeVar, cast

import numpy as np

from trainlarge.config.data import LEAST_VOCABULARY, DataConfig
from trainlarge.config.group import Plain, with_values
from trainlarge.config.task import LabelledConfig, TaskConfig
from trainlarge.data.blocks import check_fraction, check_length, subset
from trainlarge.data.corpus import corpus, reader_version
from trainlarge.data.evaluation_texts import look_at_evaluations
from trainlarge.data.label_table import training_count, training_rows
from trainlarge.data.labelled import LabelledData, check_labels, labelled_folder, prepare_labelled, table_file
from trainlarge.data.labelled_tables import Columns, look_at_rows, require_tables
from trainlarge.data.meta import LabelledMeta, Meta, TextMeta, read_meta
from trainlarge.data.mixed_blocks import rows_by_weight
from trainlarge.data.mixture import Mixture, named
from trainlarge.data.model_tokenizer import ModelTokenizer
from trainlarge.data.prepare import PreparedData, check_text, model_key, prepared_key, prepared_silently
from trainlarge.data.text import TextFiles
from trainlarge.errors import UserError

SMALL_BYTES = 300_000
"""Size of the files up to which they are prepared: that takes a second."""
DOUBTFUL_BYTES = 3_000_000
"""The same where the vocabulary may be too large for the text."""
MOST_UNKNOWN = 0.1
"""Share of unknown tokens up to which a model's tokenizer fits a text: about 0.001 where both are of one language."""
BYTES_PER_ENTRY = 40
"""Bytes of text from which an entry of the vocabulary is beyond doubt; source text has merges for one in about 20."""

M = TypeVar("M", bound=Meta)


@dataclass(frozen=True)
class Use:
    """What is to be done with data."""

    task: TaskConfig
    """The group ``task``."""
    data: DataConfig
    """The group ``data``, with its fingerprint."""
    batch_rows: int
    """Rows of a training batch; 0 where nothing is trained."""
    tokenizer: ModelTokenizer | None = None
    """Reads the data; None: one that is trained on it."""
    is_read_later: bool = False
    """Whether a tokenizer will read it that is not there yet, since its model is still to be trained."""


def check_use(use: Use, root: Path) -> None:
    """Refuse data with which the task cannot start.

    Args:
        root: where prepared data is kept; nothing is written there.

    Raises:
        UserError: a file cannot be read, a column or a split is missing, the vocabulary or a row is too long for the
            text, or the labels are not as many as said.
    """
    check = cast(Callable[[Use, Path], None], resolve_name(use.task.data_checked_by))
    check(use, root)


def look_at(data: DataConfig, task: TaskConfig) -> None:
    """Refuse data whose first rows cannot be read, or that leaves a split empty; what a tokenizer makes of it is open.

    Raises:
        UserError: naming the key or the file.
    """
    if isinstance(task, LabelledConfig):
        look_at_rows(TextFiles.from_data(data), Columns(*task.label_columns))
        return
    is_divided_as_read = True
    for key, text in data.texts().items():
        with named(key):
            source = corpus(text)
            if isinstance(source, TextFiles):
                source.look()
            is_divided_as_read &= isinstance(source, TextFiles) and source.is_divided_as_read
    if is_divided_as_read:
        check_text(data, data.known_fingerprint)


def check_packed_text(use: Use, root: Path) -> None:
    """``check_use`` of the tasks on packed rows of text."""
    data = use.data
    known = None if use.is_read_later else _kept(TextMeta, root / _key(use))
    if known is None and _is_small(data) and not use.is_read_later:
        with TemporaryDirectory() as temporary:
            prepared = prepared_silently(data, Path(temporary), use.tokenizer)
            check_unknown(prepared, use.tokenizer)
            known = read_meta(TextMeta, prepared.folder)
    elif known is None:
        look_at(data, use.task)
    if known:
        _check_sizes(known, use)
    look_at_evaluations(data)


def _check_sizes(text: TextMeta, use: Use) -> None:
    """Refuse text that is too short for a row, or for a batch."""
    data = use.data
    trained = [source.train.tokens for source in text.sources.values()] or [text.train.tokens]
    for count in (*trained, text.validation.tokens):
        check_length(count, data.sequence_length)
    blocks = text.blocks(data.sequence_length)
    check_fraction(sum(blocks.values()), data.fraction, use.batch_rows)
    if data.sources:
        in_use = {name: len(subset(count, data.fraction)) for name, count in blocks.items()}
        rows_by_weight(in_use, {name: source.weight for name, source in data.sources.items()})


def check_labelled(use: Use, root: Path) -> None:
    """``check_use`` of tasks on tables of labelled rows."""
    data, task = use.data, cast(LabelledConfig, use.task)
    columns = Columns(*task.label_columns)
    require_tables(TextFiles.from_data(data))
    folder = labelled_folder(root, data.known_fingerprint, _tokenizer_name(use), columns)
    known = _kept(LabelledMeta, folder)
    if known:
        check_labels(known.labels, task)
        rows = training_count(table_file(folder, "train"), known.train.rows, task.selection_share)
        check_fraction(rows, data.fraction, use.batch_rows)
    elif _is_small(data):
        with TemporaryDirectory() as temporary:
            # Labels and rows do not depend on the tokenizer, so bytes stand for one that is not there yet.
            read = with_values(data, vocab_size=LEAST_VOCABULARY) if use.is_read_later else data
            prepared = prepare_labelled(read, columns, Path(temporary), use.tokenizer)
            check_unknown(prepared, use.tokenizer)
            check_prepared(prepared, use)
    else:
        look_at(data, task)


def check_prepared(prepared: LabelledData, use: Use) -> None:
    """Refuse prepared rows that have other labels, or of which too few are left to train on."""
    task = cast(LabelledConfig, use.task)
    check_labels(prepared.labels, task)
    trained = training_rows(prepared.train_rows, task.selection_share)
    check_fraction(len(prepared.train_rows if trained is None else trained), use.data.fraction, use.batch_rows)


def check_unknown(prepared: PreparedData, tokenizer: ModelTokenizer | None) -> None:
    """Refuse a tokenizer of a model that does not know the text.

    Raises:
        UserError: on ``checkpoint``.
    """
    if tokenizer is None or not tokenizer.has_unknown:
        return
    share = np.count_nonzero(prepared.train == prepared.unknown_id) / len(prepared.train)
    if share > MOST_UNKNOWN:
        allowed = f"one whose tokenizer knows at least {1 - MOST_UNKNOWN:.0%} of the tokens of the data"
        raise UserError("checkpoint", f"a model to which {share:.0%} of the tokens are unknown", allowed)


def _key(use: Use) -> str:
    content, reader = use.data.known_fingerprint, reader_version(use.data)
    if use.tokenizer is None:
        return prepared_key(content, use.data.vocab_size, reader)
    return model_key(content, use.tokenizer, reader)


def _tokenizer_name(use: Use) -> int | list[Plain]:
    return use.tokenizer.name if use.tokenizer else use.data.vocab_size


def _kept(kind: type[M], folder: Path) -> M | None:
    """What is said of prepared data; None where there is none, or none that can be read."""
    try:
        return read_meta(kind, folder)
    except (OSError, ValueError, LookupError):
        return None


def _is_small(data: DataConfig) -> bool:
    source = corpus(data)
    size = source.size if isinstance(source, TextFiles | Mixture) else None
    if size is None:
        return False
    is_doubtful = size < BYTES_PER_ENTRY * data.vocab_size
    return size <= SMALL_BYTES or (is_doubtful and size <= DOUBTFUL_BYTES)
