"""How many rows one epoch has, without the tokens: what a budget in epochs is counted with.

Read off prepared data; of tables that are not prepared yet, the rows are counted.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from trainlarge.config import typed_json
from trainlarge.config.data import DataConfig
from trainlarge.config.task import TaskConfig
from trainlarge.data.corpus import reader_version
from trainlarge.data.label_table import LabelTable, is_held_out, open_table, training_count
from trainlarge.data.labelled import labelled_folder, table_file
from trainlarge.data.labelled_tables import Columns, labelled_rows
from trainlarge.data.meta import META, LabelledMeta, Meta, TextMeta
from trainlarge.data.model_tokenizer import ModelTokenizer
from trainlarge.data.prepare import model_key, prepared_key
from trainlarge.data.text import TextFiles
from trainlarge.errors import UserError
from trainlarge.sweep.sealed import read_sealed

M = TypeVar("M", bound=Meta)
COUNTED_BYTES = 20_000_000
"""Size of tables, as they are on disk, whose rows are counted: it takes seconds."""


def rows_in_use(data: DataConfig, task: TaskConfig, root: Path, of_model: ModelTokenizer | None = None) -> int | None:
    """Training rows in use of a frozen cell; None where that takes prepared data, and it is not there or is damaged.

    Args:
        data: the cell's data.
        task: what it learns.
        root: where prepared data is kept.
        of_model: reads the data; None: a tokenizer that is trained on it.
    """
    content, columns = data.known_fingerprint, task.label_columns
    if columns is None:
        reader = reader_version(data)
        key = model_key(content, of_model, reader) if of_model else prepared_key(content, data.vocab_size, reader)
        text = _meta(TextMeta, root / key)
        blocks = None if text is None else text.blocks(data.sequence_length)
        return None if blocks is None else sum(round(data.fraction * count) for count in blocks.values())
    tokenizer = of_model.name if of_model else data.vocab_size
    rows = _rows_of_table(labelled_folder(root, content, tokenizer, Columns(*columns)), task.held_out_share)
    if rows is None:
        return counted_rows(data, task)
    return round(data.fraction * rows)


def table_in_use(
    data: DataConfig, task: TaskConfig, root: Path, of_model: ModelTokenizer | None = None
) -> LabelTable | None:
    """The table of the prepared training rows of a frozen cell; None for plain text, or where it is not prepared.

    Args:
        data, task, root, of_model: as for ``rows_in_use``.
    """
    columns = task.label_columns
    if columns is None:
        return None
    tokenizer = of_model.name if of_model else data.vocab_size
    try:
        return open_table(
            table_file(labelled_folder(root, data.known_fingerprint, tokenizer, Columns(*columns)), "train")
        )
    except (OSError, ValueError):
        return None


def counted_rows(data: DataConfig, task: TaskConfig) -> int | None:
    """Training rows in use of tables as they are counted, whatever reads them; None for text, or large tables."""
    columns = task.label_columns
    rows = None if columns is None else _counted_rows(data, Columns(*columns), task.held_out_share)
    return None if rows is None else round(data.fraction * rows)


def _rows_of_table(folder: Path, held_out: float) -> int | None:
    """Rows of prepared labelled data that are trained on; None where there is none, or it is damaged."""
    table = _meta(LabelledMeta, folder)
    try:
        return None if table is None else training_count(table_file(folder, "train"), table.train.rows, held_out)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=64)
def _counted_rows(data: DataConfig, columns: Columns, held_out: float) -> int | None:
    """Rows of tables that will be trained on; None where the tables are large, or cannot be read."""
    try:
        files = TextFiles.from_data(data)
        if sum(path.stat().st_size for path in files.files) > COUNTED_BYTES:
            return None
        texts = (row.text for row in labelled_rows(files, columns, "train"))
        return sum(not is_held_out(text, held_out) for text in texts)
    except (OSError, UserError):
        # The job says what is wrong.
        return None


def _meta(kind: type[M], folder: Path) -> M | None:
    try:
        return typed_json.read(kind, read_sealed(folder / META))
    except (OSError, ValueError):
        # The job prepares it, or builds it again.
        return None
