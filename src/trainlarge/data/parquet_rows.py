"""The text column of a Parquet file, the others unread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainlarge.data.formats import Reading, TextFormat
from trainlarge.data.rows import RowCounts
from trainlarge.data.streams import MOST_EXPANSION, SMALL_BYTES
from trainlarge.errors import UserError

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 1_000
BUFFER_BYTES = 1 << 20
"""Read at a time, where else the whole column of a row group would be."""


def parquet_entries(path: Path, reading: Reading, _counts: RowCounts) -> Iterator[str | None]:
    """The text of each row, one row group after the other.

    Raises:
        UserError: there is no such column, or it holds something other than text.
        OSError, ValueError: it is not a whole Parquet file.
    """
    import pyarrow

    try:
        yield from _column(path, reading)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def column_bytes(path: Path, column: str) -> int:
    """Bytes of a column before compression, as the file says; 0 where it has none of that name."""
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_metadata(path)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column)


def _column(path: Path, reading: Reading) -> Iterator[str | None]:
    import pyarrow.parquet

    column = reading.text_column
    with pyarrow.parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        if names.count(column) != 1:
            raise UserError(reading.key, column, f"one of the columns {', '.join(names)}, of {path}")
        if file.metadata.num_rows > max(SMALL_BYTES, MOST_EXPANSION * path.stat().st_size):
            raise ValueError(f"{file.metadata.num_rows:,} rows are more than {MOST_EXPANSION} per byte of the file")
        _check_type(reading, file.schema_arrow.field(column).type, path)
        for batch in file.iter_batches(BATCH_ROWS, columns=[column]):
            values = batch.column(0) if reading.errors == "strict" else _replaced(batch.column(0))
            for value in values.to_pylist():
                yield (
                    value
                    if value is None or isinstance(value, str)
                    else str(int(value) if isinstance(value, int) else value)
                )


def _replaced(values: pyarrow.Array) -> pyarrow.Array:
    """Text with U+FFFD in the place of bytes that are not UTF-8, which Parquet does not look for."""
    import pyarrow

    if not (pyarrow.types.is_string(values.type) or pyarrow.types.is_large_string(values.type)):
        return values
    texts = (value and value.decode("utf-8", "replace") for value in values.cast(pyarrow.large_binary()).to_pylist())
    return pyarrow.array(list(texts), pyarrow.large_string())


def _check_type(reading: Reading, kind: pyarrow.DataType, path: Path) -> None:
    from pyarrow import types

    if reading.takes_numbers and (types.is_integer(kind) or types.is_boolean(kind)):
        return
    if reading.takes_fractions and types.is_floating(kind):
        return
    inner = kind.value_type if types.is_dictionary(kind) else kind
    checks = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    if not any(is_text(inner) for is_text in checks):
        raise UserError(reading.key, reading.text_column, f"a column of text, not of {kind}, in {path}")


PARQUET = TextFormat(
    (".parquet",), "from_parquet", parquet_entries, reads=frozenset({"text_column", "invalid"}), is_compressible=False
)
