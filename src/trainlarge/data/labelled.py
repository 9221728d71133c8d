"""Rows of text with a label, single sentences or pairs: read from tables, tokenized, and kept by content."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from trainlarge.config.data import SPLITS, DataConfig, Split
from trainlarge.config.group import Plain
from trainlarge.config.task import LabelledConfig
from trainlarge.data.arrays import Integers, TokenDtype, Tokens
from trainlarge.data.fingerprint import fingerprint
from trainlarge.data.kept import FileDigest, check_digest, damage_named, kept
from trainlarge.data.label_table import (
    DRAW,
    FIRST_END,
    LABEL,
    ROW,
    SECOND_END,
    LabelTable,
    draw_of,
    open_table,
    row_lengths,
)
from trainlarge.data.labelled_facts import LabelledCounter, LabelledFacts
from trainlarge.data.labelled_tables import Columns, LabelledRow, labelled_rows, no_rows
from trainlarge.data.meta import LabelledCounts, LabelledMeta, Versions, read_meta, write_meta
from trainlarge.data.model_tokenizer import ModelTokenizer
from trainlarge.data.prepare import PreparedData, check_text, kept_tokenizer, with_ids_of
from trainlarge.data.text import TextFiles
from trainlarge.data.tokenizer import TOKENIZER
from trainlarge.data.tokens import id_dtype, open_tokens
from trainlarge.errors import UserError
from trainlarge.sweep.digest import file_digest
from trainlarge.sweep.files import flush
from trainlarge.sweep.records import TextRow

log = logging.getLogger(__name__)

VERSION = 2
"""Part of every key: raise it when the same rows would give other files."""
SEGMENT = "token_type_ids"
"""Name in a batch of the segment of each token."""
BATCH_ROWS = 10_000
"""Rows that are encoded at a time."""
LARGEST_NUMBER = 1e18
"""Largest label that is a number, in absolute value: its square is a number in fp32 too."""


@dataclass(frozen=True, kw_only=True)
class LabelledData(PreparedData):
    """Tokenizer, tokens and labels of a table.

    ``train`` and ``validation`` are the tokens of all rows, without any special token.
    """

    train_rows: LabelTable
    """``ROW`` [rows]: where the tokens of the texts of a row end, and its class or number."""
    validation_rows: LabelTable
    """``ROW`` [rows], the same of the validation split."""
    labels: tuple[str, ...] = field(default=())
    """The different labels, the place of a label is its class; empty where labels are numbers."""
    repeated: int = 0
    """Validation rows whose texts stand together in a training row, too."""
    read: LabelledFacts | None = None
    """What was read of the table; None where it was prepared before that was counted."""

    @property
    def repeated_share(self) -> float:
        """Share of the validation rows whose texts stand together in a training row, too."""
        return self.repeated / len(self.validation_rows)

    def text_rows(self) -> list[TextRow]:
        """Both splits, whose rows count as documents."""
        train = TextRow(text="", use="train", documents=len(self.train_rows), tokens=len(self.train))
        held_out = TextRow(
            text="",
            use="validation",
            documents=len(self.validation_rows),
            tokens=len(self.validation),
            trained_documents=self.repeated,
        )
        return self.read.added_to(train, held_out) if self.read else [train, held_out]

    def rows(self, split: Split, indices: Integers, length: int, segments: int = 1) -> dict[str, NDArray[np.generic]]:
        """Rows as a model reads them: ``[CLS] a [SEP]`` or ``[CLS] a [SEP] b [SEP]``, padded at the end.

        Of texts that are too long the end is cut, token by token of the longer one.

        Args:
            split: ``train`` or ``validation``.
            indices: which rows, [n].
            length: tokens per row.
            segments: 2 to say which tokens are those of the second text.

        Returns:
            ``input_ids`` and ``attention_mask`` [n, length], and ``labels`` [n, 1], all int64 but labels that are
            numbers: those are fp32. With two segments also ``token_type_ids`` [n, length]: 1 at the second text and
            its ``[SEP]``, else 0 (Devlin et al. 2019, figure 2).
        """
        tokens, table = (self.train, self.train_rows) if split == "train" else (self.validation, self.validation_rows)
        # Plain views of the mapped files, and whole numbers: a step takes one place or more of each row.
        tokens, table = np.asarray(tokens), np.asarray(table)
        ends = table[SECOND_END]
        starts = np.where(indices > 0, ends[indices - 1], 0)
        bounds = zip(*(of.tolist() for of in (starts, table[FIRST_END][indices], ends[indices])), strict=True)
        ids = np.full((len(indices), length), self.pad_id, np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for place, (start, middle, end) in enumerate(bounds):
            second, used = self._fill(ids[place], tokens[start:middle], tokens[middle:end])
            mask[place, :used] = 1
            types[place, second:used] = 1
        labels = table[LABEL][indices][:, None].astype(np.int64 if self.labels else np.float32)
        rows = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return {**rows, SEGMENT: types} if segments > 1 else rows

    def lengths(self, split: Split, length: int) -> Integers:
        """Tokens of each row as a model reads it, special ones included, at most ``length``, [rows] int64."""
        return row_lengths(self.train_rows if split == "train" else self.validation_rows, length)

    def _fill(self, row: Integers, first: Tokens, second: Tokens) -> tuple[int, int]:
        """Write texts with their special tokens into an empty row; where the second one begins, and where it ends."""
        kept_first, kept_second = cut_lengths(len(first), len(second), len(row) - 2 - (len(second) > 0))
        row[0], row[1 : kept_first + 1], row[kept_first + 1] = self.cls_id, first[:kept_first], self.sep_id
        start = end = kept_first + 2
        if len(second):
            row[end : end + kept_second], row[end + kept_second] = second[:kept_second], self.sep_id
            end += kept_second + 1
        return start, end


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
    for line in prepared.read.lines() if prepared.read else ():
        log.info("%s", line)
    if prepared.repeated:
        log.warning(
            "%s of %s validation rows have the same texts as a training row: their scores are partly memorized",
            f"{prepared.repeated:,}",
            f"{len(prepared.validation_rows):,}",
        )
    return prepared if of_model is None else with_ids_of(prepared, of_model)


def labelled_folder(root: Path, content: str, tokenizer: int | list[Plain], columns: Columns) -> Path:
    """Where the rows of a table are kept.

    Args:
        root: below which.
        content: content fingerprint of the table.
        tokenizer: entries of the one that is trained on it, or what names another.
        columns: those of the labels.
    """
    names: list[Plain] = [columns.label, columns.second_text, *(["numbers"] if columns.holds_numbers else [])]
    text = json.dumps(["labelled", VERSION, TextFiles.VERSION, content, tokenizer, names])
    return root / hashlib.sha256(text.encode()).hexdigest()[:16]


def check_labels(labels: Sequence[str], task: LabelledConfig) -> None:
    """Refuse another number of labels than a column holds; numbers may be any.

    Raises:
        UserError: on ``task.labels``.
    """
    if not task.labels_are_numbers and len(labels) != task.row_labels:
        allowed = f"{len(labels)}, the different labels in column {task.label_column}: {', '.join(labels[:20])}"
        raise UserError("task.labels", task.row_labels, allowed)


def _build(
    files: TextFiles, columns: Columns, vocab_size: int, content: str, folder: Path, of_model: ModelTokenizer | None
) -> None:
    texts = (text for row in labelled_rows(files, columns, "train") for text in (row.text, row.second) if text)
    tokenizer = kept_tokenizer(folder, texts, vocab_size, of_model)
    dtype = id_dtype(vocab_size)
    labels = () if columns.holds_numbers else _labels(files, columns)
    value, counter = _value_of(labels, columns), LabelledCounter()
    rows = {
        "train": counter.take(labelled_rows(files, columns, "train", counter.rows.train)),
        "validation": counter.look(labelled_rows(files, columns, "validation", counter.rows.validation)),
    }
    counts = {
        split: _write(folder, split, ((row, value(row.label)) for row in rows[split]), tokenizer, dtype)
        for split in SPLITS
    }
    meta = LabelledMeta(
        fingerprint=content,
        vocab_size=vocab_size,
        dtype=dtype,
        versions=Versions(),
        tokenizer=FileDigest(file_digest(folder / TOKENIZER)),
        labels=labels,
        repeated=counter.in_training,
        facts=counter.facts(),
        **counts,
    )
    write_meta(folder, meta)


def _labels(files: TextFiles, columns: Columns) -> tuple[str, ...]:
    return tuple(sorted_labels({row.label for row in labelled_rows(files, columns, "train")}))


def sorted_labels(labels: Iterable[str]) -> list[str]:
    """Labels in the order of their classes: by number where all are whole numbers, else by text."""
    numbers = all(re.fullmatch(r"-?\d+", label) for label in labels)
    return sorted(labels, key=int if numbers else str)


def _value_of(labels: Sequence[str], columns: Columns) -> Callable[[str], float]:
    """What turns the label of a row into its class, or its number where ``labels`` are none.

    What it returns raises UserError for a label that is no number, or none of ``labels``.
    """
    classes = {label: float(number) for number, label in enumerate(labels)}

    def class_of(label: str) -> float:
        if label not in classes:
            allowed = f"a column whose labels in validation are among those of training: {', '.join(labels[:20])}"
            raise UserError("task.label_column", f"{columns.label} ({label})", allowed)
        return classes[label]

    def number_of(label: str) -> float:
        try:
            number = float(label)
        except ValueError:
            number = math.nan
        if not abs(number) <= LARGEST_NUMBER:
            allowed = f"a column of finite numbers of at most {LARGEST_NUMBER:g} with task=regression"
            raise UserError("task.label_column", f"{columns.label} ({label})", allowed)
        return number

    return number_of if columns.holds_numbers else class_of


def _write(
    folder: Path, split: Split, rows: Iterator[tuple[LabelledRow, float]], tokenizer: Tokenizer, dtype: TokenDtype
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
            parts.append(_table([row for row, _ in batch], end + ends, [value for _, value in batch]))
            end += len(ids)
    if not parts:
        raise no_rows(split)
    np.save(table, np.concatenate(parts), allow_pickle=False)
    for path in (tokens, table):
        flush(path)
    count = sum(map(len, parts))
    return LabelledCounts(count, end, file_digest(tokens), file_digest(table))


def _table(rows: list[LabelledRow], ends: Integers, values: list[float]) -> LabelTable:
    """The part of the table that describes these rows.

    Args:
        ends: where the tokens of their texts end, [rows, 2].
        values: class or number of each.
    """
    table = np.empty(len(rows), ROW)
    table[FIRST_END], table[SECOND_END] = ends.T
    table[LABEL], table[DRAW] = values, [draw_of(row.text) for row in rows]
    return table


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
        repeated=meta.repeated,
        read=meta.facts,
    )


def _open_split(folder: Path, split: Split, counts: LabelledCounts, dtype: TokenDtype) -> tuple[Tokens, LabelTable]:
    """Tokens and table of a split. Raises ValueError where they are not as they were written."""
    tokens, table = _files(folder, split)
    check_digest(tokens, counts.sha256)
    check_digest(table, counts.rows_sha256)
    return open_tokens(tokens, dtype), open_table(table)


def table_file(folder: Path, split: Split) -> Path:
    """Where the table of a split is kept."""
    return folder / f"{split}.npy"


def _files(folder: Path, split: Split) -> tuple[Path, Path]:
    return folder / f"{split}.bin", table_file(folder, split)
