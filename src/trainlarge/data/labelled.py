"""Rows of text with a label, single sentences or pairs: read from tables, tokenized, and kept by content."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from trainlarge.config.data import SPLITS, DataConfig, Split
from trainlarge.config.group import Plain
from trainlarge.data.arrays import Integers, TokenDtype, Tokens
from trainlarge.data.fingerprint import fingerprint
from trainlarge.data.formats import Reading
from trainlarge.data.kept import damage_named, kept
from trainlarge.data.meta import FileDigest, LabelledCounts, LabelledMeta, Versions, check_digest, read_meta, write_meta
from trainlarge.data.model_tokenizer import ModelTokenizer
from trainlarge.data.prepare import PreparedData, check_text, kept_tokenizer, with_ids_of
from trainlarge.data.rows import RowCounts
from trainlarge.data.text import TextFiles, read_entries
from trainlarge.data.tokenizer import TOKENIZER
from trainlarge.data.tokens import id_dtype, open_tokens
from trainlarge.errors import UserError
from trainlarge.sweep.digest import file_digest
from trainlarge.sweep.files import flush

VERSION = 1
"""Part of every key: raise it when the same rows would give other files."""
BATCH_ROWS = 10_000
"""Rows that are encoded at a time."""
FIRST_END, SECOND_END, LABEL = range(3)
"""Columns of the table of rows: where the tokens of the first and of the second text end, and the class."""


@dataclass(frozen=True)
class Columns:
    """Columns of a table of labelled rows; that of the text is ``data.text_column``."""

    label: str
    """Column of the label: text, or a whole number."""
    second_text: str | None = None
    """Column of the second text of a pair; None: rows have one text."""


class LabelledRow(NamedTuple):
    """One row of a table."""

    text: str
    second: str | None
    label: str


@dataclass(frozen=True, kw_only=True)
class LabelledData(PreparedData):
    """Tokenizer, tokens and labels of a table.

    ``train`` and ``validation`` are the tokens of all rows, without any special token.
    """

    train_rows: Integers
    """int64 [rows, 3]: where the tokens of the first and of the second text of a row end, and its class."""
    validation_rows: Integers
    """int64 [rows, 3], the same of the validation split."""
    labels: tuple[str, ...] = field(default=())
    """The different labels; the place of a label is its class."""

    def rows(self, split: Split, indices: Integers, length: int) -> dict[str, Integers]:
        """Rows as a model reads them: ``[CLS] a [SEP]`` or ``[CLS] a [SEP] b [SEP]``, padded at the end.

        Of texts that are too long the end is cut, token by token of the longer one.

        Args:
            split: ``train`` or ``validation``.
            indices: which rows, [n].
            length: tokens per row.

        Returns:
            ``input_ids`` and ``attention_mask`` [n, length], and ``labels`` [n, 1], all int64.
        """
        tokens, table = (self.train, self.train_rows) if split == "train" else (self.validation, self.validation_rows)
        ids = np.full((len(indices), length), self.pad_id, np.int64)
        mask = np.zeros_like(ids)
        for place, index in enumerate(indices):
            start, (middle, end) = table[index - 1, SECOND_END] if index else 0, table[index, :LABEL]
            row = self._sentences(tokens[start:middle], tokens[middle:end], length)
            ids[place, : len(row)], mask[place, : len(row)] = row, 1
        return {"input_ids": ids, "attention_mask": mask, "labels": table[indices, LABEL:]}

    def _sentences(self, first: Tokens, second: Tokens, length: int) -> Integers:
        room = length - 2 - (len(second) > 0)
        kept_first, kept_second = cut_lengths(len(first), len(second), room)
        end = [*second[:kept_second], self.sep_id] if len(second) else []
        return np.array([self.cls_id, *first[:kept_first], self.sep_id, *end], np.int64)


def cut_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens that are left of two texts in ``room`` places: the longer one is cut, then both alike."""
    shorter = min(first, second, room // 2)
    return (shorter, min(second, room - shorter)) if first < second else (min(first, room - shorter), shorter)


def prepare_labelled(
    data: DataConfig, columns: Columns, root: Path, of_model: ModelTokenizer | None = None
) -> LabelledData:
    """Prepared rows of a ``data`` group, built below ``root`` unless they are there already.

    Args:
        data: the group.
        columns: what is read next to the text.
        root: folder in which prepared data is kept.
        of_model: reads the text; None: a tokenizer is trained on the texts of the training split.

    Raises:
        UserError: a setting is wrong, a file cannot be read or has no such column, a split has no row, or a label of
            the validation split is not among those of the training split.
    """
    content = data.fingerprint or fingerprint(data)
    vocab_size = data.vocab_size if of_model is None else of_model.vocab_size
    tokenizer = vocab_size if of_model is None else of_model.name
    folder = labelled_folder(root, content, tokenizer, columns)

    def build(partial: Path) -> None:
        check_text(data, content)
        _build(TextFiles.from_data(data), columns, vocab_size, content, partial, of_model)

    prepared = kept(folder, lambda there: _load(there, content), build)
    return prepared if of_model is None else with_ids_of(prepared, of_model)


def labelled_folder(root: Path, content: str, tokenizer: int | list[Plain], columns: Columns) -> Path:
    """Where the rows of a table are kept.

    Args:
        root: below which.
        content: content fingerprint of the table.
        tokenizer: entries of the one that is trained on it, or what names another.
        columns: those of the labels.
    """
    names: list[Plain] = [columns.label, columns.second_text]
    text = json.dumps(["labelled", VERSION, TextFiles.VERSION, content, tokenizer, names])
    return root / hashlib.sha256(text.encode()).hexdigest()[:16]


def check_labels(labels: Sequence[str], expected: int, column: str) -> None:
    """Refuse another number of labels than a column holds.

    Raises:
        UserError: on ``task.labels``.
    """
    if len(labels) != expected:
        allowed = f"{len(labels)}, the different labels in column {column}: {', '.join(labels[:20])}"
        raise UserError("task.labels", expected, allowed)


def labelled_rows(files: TextFiles, columns: Columns, split: Split) -> Iterator[LabelledRow]:
    """Rows of one split that have a label and every text. Rows of the same first text are in the same split.

    Raises:
        UserError: a file cannot be read, has no such column, or is no table.
    """
    require_tables(files)
    readings = _readings(files, columns)
    for path in files.files_of(split):
        # Each reader hands one column on; all of them see every row.
        for entries in zip(*(read_entries(path, one, RowCounts()) for one in readings), strict=True):
            if all(entry and not entry.isspace() for entry in entries) and files.holds(split, str(entries[0])):
                middle = entries[1] if columns.second_text else None
                yield LabelledRow(str(entries[0]), middle, str(entries[-1]).strip())


def require_tables(files: TextFiles) -> None:
    """Raise UserError for a file without columns."""
    for path in files.files + files.validation_files:
        if not files.has_columns(path):
            raise UserError("data.files", path, "tables with a column of labels: .jsonl, .json, .csv, .tsv or .parquet")


def look_at_rows(files: TextFiles, columns: Columns) -> None:
    """Read the first row of each split, and each file up to the first entry of every column.

    Raises:
        UserError: as ``labelled_rows``, or a split has no row.
    """
    for split in SPLITS:
        if next(labelled_rows(files, columns, split), None) is None:
            raise _no_rows(split)
    for path in files.files + files.validation_files:
        for reading in _readings(files, columns):
            next(filter(None, read_entries(path, reading, RowCounts())), None)


def _readings(files: TextFiles, columns: Columns) -> tuple[Reading, ...]:
    """How each column is read: the text, the second text where there is one, the label."""
    reading = files.reading
    label = replace(reading, text_column=columns.label, key="task.label_column", takes_numbers=True)
    second = replace(reading, text_column=columns.second_text or "", key="task.second_text_column")
    return (reading, second, label) if columns.second_text else (reading, label)


def _no_rows(split: Split) -> UserError:
    return UserError("data.files", split, "files with rows for both splits that have a text and a label")


def _build(
    files: TextFiles, columns: Columns, vocab_size: int, content: str, folder: Path, of_model: ModelTokenizer | None
) -> None:
    texts = (text for row in labelled_rows(files, columns, "train") for text in (row.text, row.second) if text)
    tokenizer = kept_tokenizer(folder, texts, vocab_size, of_model)
    dtype = id_dtype(vocab_size)
    labels = sorted_labels({row.label for row in labelled_rows(files, columns, "train")})
    counts = {}
    for split in SPLITS:
        rows = _with_classes(labelled_rows(files, columns, split), labels, columns)
        counts[split] = _write(folder, split, rows, tokenizer, dtype)
    meta = LabelledMeta(
        fingerprint=content,
        vocab_size=vocab_size,
        dtype=dtype,
        versions=Versions(),
        tokenizer=FileDigest(file_digest(folder / TOKENIZER)),
        labels=tuple(labels),
        **counts,
    )
    write_meta(folder, meta)


def sorted_labels(labels: Iterable[str]) -> list[str]:
    """Labels in the order of their classes: by number where all are whole numbers, else by text."""
    numbers = all(re.fullmatch(r"-?\d+", label) for label in labels)
    return sorted(labels, key=int if numbers else str)


def _with_classes(
    rows: Iterable[LabelledRow], labels: list[str], columns: Columns
) -> Iterator[tuple[LabelledRow, int]]:
    classes = {label: number for number, label in enumerate(labels)}
    for row in rows:
        if row.label not in classes:
            allowed = f"a column whose labels in validation are among those of training: {', '.join(labels[:20])}"
            raise UserError("task.label_column", f"{columns.label} ({row.label})", allowed)
        yield row, classes[row.label]


def _write(
    folder: Path, split: Split, rows: Iterator[tuple[LabelledRow, int]], tokenizer: Tokenizer, dtype: TokenDtype
) -> LabelledCounts:
    """Write tokens and table of a split; its entry in ``meta.json``.

    Raises:
        UserError: there is no row.
    """
    tokens, table = _files(folder, split)
    parts, end = [], 0
    with tokens.open("wb") as file:
        while batch := list(islice(rows, BATCH_ROWS)):
            ids, ends = _encoded([row for row, _ in batch], tokenizer, dtype)
            file.write(ids.tobytes())
            parts.append(np.column_stack([end + ends, [number for _, number in batch]]))
            end += len(ids)
    if not parts:
        raise _no_rows(split)
    np.save(table, np.concatenate(parts).astype("<i8"), allow_pickle=False)
    for path in (tokens, table):
        flush(path)
    count = sum(map(len, parts))
    return LabelledCounts(count, end, file_digest(tokens), file_digest(table))


def _encoded(rows: list[LabelledRow], tokenizer: Tokenizer, dtype: TokenDtype) -> tuple[Tokens, Integers]:
    """Ids of the texts one after the other, [tokens], and where the texts of each row end.

    The ends are those of the first and of the second text, [rows, 2].
    """
    texts = [text for row in rows for text in (row.text, row.second or "")]
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    ids = [np.array(encoding.ids, dtype) for encoding in encodings]
    return np.concatenate(ids), np.cumsum([len(one) for one in ids]).reshape(-1, 2)


def _load(folder: Path, content: str) -> LabelledData:
    with damage_named(folder):
        meta = read_meta(LabelledMeta, folder, content)
        train, validation = (
            _open_split(folder, split, counts, meta.dtype)
            for split, counts in zip(SPLITS, (meta.train, meta.validation), strict=True)
        )
    return LabelledData(
        folder,
        content,
        folder / TOKENIZER,
        meta.vocab_size,
        train[0],
        validation[0],
        train_rows=train[1],
        validation_rows=validation[1],
        labels=meta.labels,
    )


def _open_split(folder: Path, split: Split, counts: LabelledCounts, dtype: TokenDtype) -> tuple[Tokens, Integers]:
    """Tokens and table of a split. Raises ValueError where they are not as they were written."""
    tokens, table = _files(folder, split)
    check_digest(tokens, counts.sha256)
    check_digest(table, counts.rows_sha256)
    return open_tokens(tokens, dtype), np.load(table, mmap_mode="r", allow_pickle=False)


def _files(folder: Path, split: Split) -> tuple[Path, Path]:
    return folder / f"{split}.bin", folder / f"{split}.npy"
