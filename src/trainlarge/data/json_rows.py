"""The text column of JSON lines, or of a JSON array of rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import orjson

from trainlarge.config.group import Plain
from trainlarge.data.formats import Reading, TextFormat
from trainlarge.data.rows import RowCounts, without_lone_surrogates
from trainlarge.data.streams import open_bytes, open_lines
from trainlarge.errors import UserError

_MARK = "\ufeff".encode()
_NAMED_COLUMNS = 50


def json_entries(path: Path, reading: Reading, counts: RowCounts) -> Iterator[str | None]:
    """The text of each row, None where it is null or missing. Lines are read one by one, an array as a whole.

    Raises:
        UserError: a row is no object, its text is a number or another thing than text, or no row has the column.
        ValueError: a line is not JSON.
    """
    lines = _lines(path, reading)
    first = next((line for line in lines if line.strip()), b"")
    if first.lstrip().startswith(b"["):
        parsed = _parsed(b"".join([first, *lines]), "the array", counts, reading)
        rows: Iterable[Plain] = parsed if isinstance(parsed, list) else [parsed]
    else:
        filled = (line for line in chain([first], lines) if line.strip())
        rows = (_parsed(line, f"row {number}", counts, reading) for number, line in enumerate(filled, 1))
    return _column(rows, path, reading)


def _lines(path: Path, reading: Reading) -> Iterator[bytes]:
    if reading.encoding != "utf-8" or reading.errors != "strict":
        # Line ends as in bytes: a lone "\r" is none.
        lines = open_lines(path, reading.encoding, newline="\n", errors=reading.errors)
        yield from (line.encode() for line in lines)
        return
    with open_bytes(path) as file:
        yield next(file, b"").removeprefix(_MARK)
        yield from file


def _parsed(text: bytes, where: str, counts: RowCounts, reading: Reading) -> Plain:
    """The value that ``text`` stands for.

    What orjson refuses and JSON's grammar allows, or many programs write, is read too: half a surrogate pair, NaN,
    numbers beyond 64 bits.
    """
    try:
        read: Plain = orjson.loads(text)
        return read
    except ValueError:
        pass
    try:
        value: Plain = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply") from error
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    for row in value if isinstance(value, list) else [value]:
        if isinstance(row, dict) and isinstance(entry := row.get(reading.text_column), str):
            # Where invalid bytes are replaced, rows with U+FFFD are counted as they are handed on.
            kept = counts if reading.errors == "strict" else RowCounts()
            row[reading.text_column] = without_lone_surrogates(entry, kept)
    return value


def _column(rows: Iterable[Plain], path: Path, reading: Reading) -> Iterator[str | None]:
    column, columns, is_there = reading.text_column, dict[str, None](), False
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError("data.files", path, f"rows that are JSON objects; row {number} is {_kind(row)}")
        entry = row.get(column)
        if reading.takes_numbers and isinstance(entry, int):
            entry = str(int(entry))
        elif reading.takes_fractions and isinstance(entry, float):
            entry = repr(entry)
        if entry is not None and not isinstance(entry, str):
            allowed = f"a column of text; row {number} of {path} holds {_kind(entry)}"
            raise UserError(reading.key, column, allowed)
        if not is_there:
            is_there = column in row
            columns |= dict.fromkeys(row) if len(columns) < _NAMED_COLUMNS else {}
        yield entry
    if columns and not is_there:
        raise UserError(reading.key, column, f"one of the columns {', '.join(columns)}, of {path}")


def _kind(value: object) -> str:
    return "a number" if isinstance(value, int | float) else f"a {type(value).__name__}"


JSON = TextFormat(
    (".jsonl", ".json"), "from_json", json_entries, reads=frozenset({"text_column", "encoding", "invalid"})
)
