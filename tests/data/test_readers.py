"""What each reader makes of files that are damaged, odd, or written by other programs."""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from groups import data_group
from trainlarge.data import streams
from trainlarge.data.corpus import corpus
from trainlarge.data.fingerprint import fingerprint
from trainlarge.data.formats import Reading
from trainlarge.data.rows import RowCounts
from trainlarge.data.text import read_documents
from trainlarge.errors import UserError

TEXT = "".join(f"line {i} naïve\n" for i in range(20_000)).encode()
SKIPPABLE = struct.pack("<II", 0x184D2A50, 5) + b"notes"
zstd = zstandard.ZstdCompressor().compress


def read(path: Path, content: bytes, reading: Reading | None = None) -> list[str]:
    path.write_bytes(content)
    return list(read_documents(path, reading or Reading()))


def refused(path: Path, content: bytes, message: str, reading: Reading | None = None) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(path, content, reading)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def lines(documents: list[str]) -> list[str]:
    return [line for text in documents for line in text.split("\n") if line.strip()]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, -1, -3])
@pytest.mark.parametrize(("ending", "compress"), [(".gz", gzip.compress), (".zst", zstd)])
def test_a_stream_whose_end_is_missing_is_refused(
    tmp_path: Path, ending: str, compress: Callable[[bytes], bytes], share: float
) -> None:
    whole = compress(TEXT)
    cut = whole[:share] if share < 0 else whole[: int(share * len(whole))]
    refused(tmp_path / f"a.txt{ending}", cut, "EOFError")


@pytest.mark.parametrize(
    "content",
    [
        zstd(TEXT[:1000]) + zstd(TEXT[1000:]),
        SKIPPABLE + zstd(TEXT),
        zstd(TEXT) + SKIPPABLE,
        zstd(b"") + zstd(TEXT[:5]) + SKIPPABLE + zstd(TEXT[5:]) + zstd(b""),
        zstandard.ZstdCompressor(write_content_size=False).compressobj().compress(b"") or zstd(TEXT),
        zstandard.ZstdCompressor(write_checksum=True).compress(TEXT),
    ],
)
def test_frames_one_after_the_other_are_one_stream(tmp_path: Path, content: bytes) -> None:
    assert lines(read(tmp_path / "a.txt.zst", content)) == TEXT.decode().splitlines()


def test_a_frame_that_needs_the_largest_window_is_read(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    streamed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = streamed.compress(TEXT) + streamed.flush()
    assert zstandard.get_frame_parameters(content).window_size == 1 << 31
    assert lines(read(tmp_path / "a.txt.zst", content)) == TEXT.decode().splitlines()


def test_an_empty_frame_and_an_empty_member_hold_no_document(tmp_path: Path) -> None:
    assert read(tmp_path / "a.txt.zst", zstd(b"")) == read(tmp_path / "a.txt.gz", gzip.compress(b"")) == []


@pytest.mark.parametrize("garbage", [b"x", b"trailing garbage", b"\x28\xb5", SKIPPABLE[:-1]])
@pytest.mark.parametrize(("ending", "compress"), [(".gz", gzip.compress), (".zst", zstd)])
def test_what_stands_behind_a_stream_is_refused(
    tmp_path: Path, ending: str, compress: Callable[[bytes], bytes], garbage: bytes
) -> None:
    refused(tmp_path / f"a.txt{ending}", compress(TEXT) + garbage, "readable .txt file")


def test_members_of_gzip_are_one_stream_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(TEXT[:999]) + gzip.compress(TEXT[999:])
    assert lines(read(tmp_path / "a.txt.gz", whole)) == TEXT.decode().splitlines()
    refused(tmp_path / "a.txt.gz", whole[:-6] + b"\x00" + whole[-5:], "CRC")


def test_a_csv_with_a_separator_at_the_end_of_each_row_keeps_its_columns(tmp_path: Path) -> None:
    content = b"title,text,summary\n" + b"".join(b"t%d,the text %d,s%d,\n" % (i, i, i) for i in range(3))
    assert read(tmp_path / "a.csv", content) == ["the text 0", "the text 1", "the text 2"]


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        (b"1,a,b\n2,c\n", r"row 2 \(it ends in line 3\) has 2 fields, the header 3"),
        (b'1,"a\nb",b\n2,c,d,e\n', r"row 2 \(it ends in line 4\) has 4 fields, the header 3"),
        (b'1,"a,b\n2,c,d\n', "a quote of the last row is never closed"),
        (b'1,a,"', "never closed"),
    ],
)
def test_a_csv_row_that_does_not_fit_is_named(tmp_path: Path, rows: bytes, where: str) -> None:
    refused(tmp_path / "a.csv", b"id,text,more\n" + rows, where)


def test_csv_fields_are_text_as_they_are_written(tmp_path: Path) -> None:
    rows = ["00017", "1e3", "NA", "true", " x ", "a\nb", "a\r\nb", 'say "x"', "z" * 200_000]
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\r\n").writerows([["id", "text"], *enumerate(rows)])
    assert read(tmp_path / "a.csv", b"\xef\xbb\xbf" + file.getvalue().encode()) == rows
    assert read(tmp_path / "b.csv", b"\n\ntext\n1\n\n2") == ["1", "2"]


@pytest.mark.parametrize("separator", [";", "|", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "cp1252", "latin-1"])
def test_other_separators_and_encodings(tmp_path: Path, separator: str, encoding: str) -> None:
    content = f"id{separator}text\n1{separator}café, naïve\n".encode(encoding)
    reading = Reading(encoding=encoding, separator=separator)
    assert read(tmp_path / "a.csv", content, reading) == ["café, naïve"]


def test_tsv_is_separated_by_tabs(tmp_path: Path) -> None:
    assert read(tmp_path / "a.tsv", b"id\ttext\n1\ta,b\n") == ["a,b"]


def test_a_column_given_twice_is_refused_and_one_column_hints_at_the_separator(tmp_path: Path) -> None:
    refused(tmp_path / "a.csv", b"text,text\na,b\n", "has once; it has 2 of that name")
    refused(tmp_path / "a.csv", b"id;text\n1;a\n", "id;text, of .*; or another data.separator")


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.jsonl", "a.json", "a.csv", "a.tsv"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_no_byte_order_mark_reaches_the_text(tmp_path: Path, name: str, encoding: str) -> None:
    contents = {
        "jsonl": '{"text": "héllo"}\n',
        "json": '[{"text": "héllo"}]',
        "csv": "text\nhéllo",
        "tsv": "text\nhéllo",
    }
    content = contents.get(name.partition(".")[2], "héllo")
    reading = Reading(encoding="utf-8" if encoding == "utf-8-sig" else encoding)
    assert read(tmp_path / name, content.encode(encoding), reading) == ["héllo"]


def test_text_in_another_encoding_names_the_key(tmp_path: Path) -> None:
    refused(tmp_path / "a.txt", "café".encode("cp1252"), "text in utf-8, or another data.encoding")


def test_json_lines_where_a_field_comes_late(tmp_path: Path) -> None:
    rows = [{"text": f"row {i}"} | ({"late": {"deep": [i]}} if i > 4000 else {}) for i in range(5000)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert read(tmp_path / "a.jsonl", content) == [row["text"] for row in rows]


def test_half_a_surrogate_pair_is_replaced_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a \\ud83d b"}\n{"text": "\\ud83d\\ude00"}\n{"text": "c", "other": "\\ud83d"}\n')
    counts = RowCounts()
    assert list(read_documents(path, Reading(), counts)) == ["a \ufffd b", "\U0001f600", "c"]
    assert counts == RowCounts(rows=3, repaired=1)


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"text": ' + b"[" * 100_000, b'{"a":' * 100_000])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_deep_json_is_refused_in_one_line(tmp_path: Path, name: str, deep: bytes) -> None:
    refused(tmp_path / name, deep, "nested too deeply|not JSON")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": 17}\n', "a column of text; row 2 of .* holds a number"),
        (b'{"text": ["a"]}\n', "row 1 of .* holds a list"),
        (b'{"text": "a"}\n"b"\n', "row 2 is a str"),
        (b'{"text": "a"}\n\n{"text": "b', "row 2 is not JSON"),
        (b'{"body": "a"}\n{"id": 1}\n', "one of the columns body, id, of"),
        (b'[{"text": "a"}, {"text": 1.5}]', "row 2 of .* holds a number"),
    ],
)
def test_json_that_holds_no_text_names_the_row(tmp_path: Path, content: bytes, message: str) -> None:
    refused(tmp_path / "a.json", content, message)


def as_parquet(table: pyarrow.Table, **options: object) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, **options)
    return file.getvalue()


def test_parquet_reads_the_text_column_alone(tmp_path: Path) -> None:
    words = ["a", None, "b", "b", " "]
    maps = pyarrow.array([[("k", 1)]] * 5, pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    for kind in (pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())):
        table = pyarrow.table({"map": maps, "text": pyarrow.array(words, pyarrow.string()).cast(kind)})
        (tmp_path / "a.parquet").write_bytes(as_parquet(table, row_group_size=2))
        counts = RowCounts()
        assert list(read_documents(tmp_path / "a.parquet", Reading(), counts)) == ["a", "b", "b"]
        assert counts == RowCounts(rows=5, without_text=2)


def test_parquet_that_is_cut_or_holds_numbers_is_refused(tmp_path: Path) -> None:
    whole = as_parquet(pyarrow.table({"text": ["a"] * 100, "n": range(100)}))
    for size in (0, 4, len(whole) // 2, len(whole) - 1):
        refused(tmp_path / "a.parquet", whole[:size], "readable .parquet file")
    refused(tmp_path / "a.parquet", whole, "a column of text, not of int64", Reading("n"))
    refused(tmp_path / "a.parquet", whole, "one of the columns text, n", Reading("body"))


def test_names_that_mean_something_elsewhere(tmp_path: Path) -> None:
    for name in ("a::b.txt", "zip::x.jsonl.gz", "https:::a.csv", "a?b*[c].txt"):
        (tmp_path / name).write_bytes(gzip.compress(b'{"text": "x"}') if name.endswith("gz") else b"text\nx")
        assert list(read_documents(tmp_path / name, Reading()))


def test_a_folder_stands_for_the_files_in_it(tmp_path: Path) -> None:
    for name in ("b/c.md", "a.txt", "b/d.csv", "other.docx", ".hidden.txt", ".git/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text\n{name}")
    source = corpus(
        data_group(
            {"name": "text", "files": [str(tmp_path), str(tmp_path / "b"), str(tmp_path / "b" / ".." / "a.txt")]}
        )
    )
    assert sorted(path.name for path in source.files) == ["a.txt", "c.md", "d.csv"]  # type: ignore[attr-defined]


def test_rows_without_text_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": " "}\n{"text": null}\n{"text": ""}\n{"other": 1}\n{"text": "x"}\n')
    counts = RowCounts()
    assert list(read_documents(tmp_path / "a.jsonl", Reading(), counts)) == ["x"]
    assert counts == RowCounts(rows=5, without_text=4)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
@pytest.mark.parametrize(("ending", "compress"), [(".gz", gzip.compress), (".zst", zstd)])
@pytest.mark.parametrize("content", [b"\n", b"a", b'{"text": "a"}\n'])
def test_a_file_that_inflates_without_end_is_refused(
    tmp_path: Path,
    name: str,
    ending: str,
    compress: Callable[[bytes], bytes],
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "SMALL_BYTES", 1 << 20)
    if name == "a.csv":
        content = b"text\n" + content
    bomb = compress(content * ((4 << 20) // len(content)))
    refused(tmp_path / f"{name}{ending}", bomb, "more than 200 times its own size")


def test_text_that_is_compressed_well_is_read(tmp_path: Path) -> None:
    text = b"the same line again and again\n" * 20_000
    assert len(lines(read(tmp_path / "a.txt.zst", zstd(text)))) == 20_000


@pytest.mark.parametrize("depth", [900, 100_000, 2_000_000])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("is_closed", [True, False])
def test_deep_json_is_read_or_refused(
    tmp_path: Path, name: str, opens: str, closes: str, depth: int, is_closed: bool
) -> None:
    deep = opens * depth + "1" + closes * depth * is_closed
    path = tmp_path / name
    path.write_text(f'{{"text": "first"}}\n{{"text": "second", "more": {deep}}}\n')
    try:
        assert list(read_documents(path, Reading())) == ["first", "second"] and is_closed
    except UserError as error:
        assert "data.files" in str(error) and name in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("ending", [".txt", ".csv", ".jsonl", ".jsonl.gz", ".parquet"])
def test_invalid_bytes_are_replaced_and_counted_where_that_is_asked_for(tmp_path: Path, ending: str) -> None:
    rows = [b"whole", b"a \xff b", b"\xe2\x82 cut", "naïve".encode()]
    path = tmp_path / f"a{ending}"
    if ending == ".parquet":
        array = pyarrow.array(rows, pyarrow.binary()).view(pyarrow.string())
        pyarrow.parquet.write_table(pyarrow.table({"text": array}), path)
    elif ending == ".txt":
        path.write_bytes(b"\n".join(rows))
    elif ending == ".csv":
        path.write_bytes(b"\n".join([b"text", *rows]))
    else:
        content = b"\n".join(b'{"text": "' + row + b'"}' for row in rows)
        path.write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    with pytest.raises(UserError, match=r"data\.invalid=replace"):
        list(read_documents(path, Reading()))
    counts = RowCounts()
    read = list(read_documents(path, Reading(errors="replace"), counts))
    expected = ["whole", "a \ufffd b", "\ufffd cut", "naïve"]
    assert read == (["\n".join(expected)] if ending == ".txt" else expected)
    assert counts.repaired == (1 if ending == ".txt" else 2)


def test_replacing_is_part_of_the_contents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a \xff b")
    prints = {
        fingerprint(data_group({"name": "text", "files": [str(tmp_path)], "split": "grouped", "invalid": invalid}))
        for invalid in ("refuse", "replace")
    }
    assert len(prints) == 2
