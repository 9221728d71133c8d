"""Labelled rows: the same from every format, tokenized once, whole or built again."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groups import data_group
from trainlarge.config.data import DataConfig
from trainlarge.data.label_table import is_selection, training_rows
from trainlarge.data.labelled import LabelledData, cut_lengths, prepare_labelled, sorted_labels
from trainlarge.data.labelled_tables import Columns, labelled_rows
from trainlarge.data.meta import META
from trainlarge.data.text import TextFiles
from trainlarge.data.tokenizer import CLS_ID, PAD_ID, SEP_ID, load_tokenizer
from trainlarge.errors import UserError
from trainlarge.sweep.sealed import read_sealed, write_sealed

PAIRS = Columns(label="label", second_text="hypothesis")
Table = list[dict[str, Any]]


def rows(count: int = 60) -> Table:
    return [
        {"text": f"premise {number // 2} of {number}", "hypothesis": f"and its number {number}", "label": number % 3}
        for number in range(count)
    ]


def texts_with(label: Callable[[int], float]) -> Table:
    return [{"text": str(number), "label": label(number)} for number in range(60)]


def as_jsonl(path: Path, table: Table) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, table)))


def as_separated(path: Path, table: Table) -> None:
    separator = "," if path.suffix == ".csv" else "\t"
    lines = [separator.join(table[0]), *(separator.join(map(str, row.values())) for row in table)]
    path.write_text("\n".join(lines), encoding="utf-8")


def as_parquet(path: Path, table: Table) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)


FORMATS: dict[str, Callable[[Path, Table], None]] = {
    "rows.jsonl.gz": as_jsonl, "rows.csv": as_separated, "rows.tsv": as_separated, "rows.parquet": as_parquet,
}  # fmt: skip


def group(*files: Path, **more: Any) -> DataConfig:
    keys = {"name": "text", "files": [str(file) for file in files], "vocab_size": 270, "validation_share": 0.3}
    return data_group({**keys, **more})


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    FORMATS[name](tmp_path / name, rows())
    files = TextFiles.from_data(group(tmp_path / name))
    found = {split: list(labelled_rows(files, PAIRS, split)) for split in ("train", "validation")}  # type: ignore[arg-type]
    assert sorted(found["train"] + found["validation"]) == sorted((*map(str, row.values()),) for row in rows())
    premises = [{row.text.split(" of ")[0] for row in part} for part in found.values()]
    assert all(premises)


def test_rows_without_a_text_or_a_label_are_left_out(tmp_path: Path) -> None:
    table = [*rows(4), {"text": "x", "label": 1}, {"text": " ", "hypothesis": "y", "label": 1}, {"text": "z"}]
    as_jsonl(tmp_path / "rows.jsonl.gz", table)
    files = TextFiles.from_data(group(tmp_path / "rows.jsonl.gz"))
    parts = [labelled_rows(files, PAIRS, split) for split in ("train", "validation")]  # type: ignore[arg-type]
    assert sum(len(list(part)) for part in parts) == 4


@pytest.fixture
def prepared(tmp_path: Path) -> LabelledData:
    as_jsonl(tmp_path / "rows.jsonl.gz", rows())
    return prepare_labelled(group(tmp_path / "rows.jsonl.gz"), PAIRS, tmp_path / "root")


def test_a_row_is_what_the_tokenizer_makes_of_its_pair_padded(prepared: LabelledData) -> None:
    data = group(prepared.folder.parents[1] / "rows.jsonl.gz")
    tokenizer = load_tokenizer(prepared.tokenizer_file)
    expected = list(labelled_rows(TextFiles.from_data(data), PAIRS, "validation"))
    batch = prepared.rows("validation", np.arange(len(expected)), 64)
    for row, ids, mask, label in zip(expected, *batch.values(), strict=True):
        encoded = tokenizer.encode(row.text, row.second).ids
        assert ids.tolist() == encoded + [PAD_ID] * (64 - len(encoded))
        assert mask.tolist() == [1] * len(encoded) + [0] * (64 - len(encoded))
        assert prepared.labels[label.item()] == row.label


def test_segments_say_which_tokens_are_those_of_the_second_text(prepared: LabelledData) -> None:
    count = len(prepared.validation_rows)
    for length in (64, 9):
        one, two = (prepared.rows("validation", np.arange(count), length, segments) for segments in (1, 2))
        types = two.pop("token_type_ids")
        assert all(np.array_equal(one[name], values) for name, values in two.items()) and one.keys() == two.keys()
        for ids, mask, row in zip(one["input_ids"], one["attention_mask"], types, strict=True):
            first, second = np.flatnonzero((ids == SEP_ID) & (mask == 1))
            assert np.flatnonzero(row).tolist() == [*range(first + 1, second + 1)]


def test_long_texts_are_cut_and_the_special_tokens_stay(prepared: LabelledData) -> None:
    batch = prepared.rows("train", np.arange(len(prepared.train_rows)), 9)
    assert batch["attention_mask"].all()
    ids = batch["input_ids"]
    assert (ids[:, 0] == CLS_ID).all() and (ids[:, 4] == SEP_ID).all() and (ids[:, 8] == SEP_ID).all()
    assert (ids == SEP_ID).sum() == 2 * len(ids)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 60))
def test_the_longer_text_is_cut_first(first: int, second: int, room: int) -> None:
    left = cut_lengths(first, second, room)
    assert left[0] <= first and left[1] <= second and sum(left) == min(first + second, room)
    if left[0] < first and left[1] < second:
        assert abs(left[0] - left[1]) <= 1
    elif left[0] < first:
        assert left[0] >= left[1] - 1
    elif left[1] < second:
        assert left[1] >= left[0] - 1


def test_held_out_rows_are_a_share_of_texts_and_nothing_else_decides_which(tmp_path: Path) -> None:
    table = [
        {"text": f"premise  {number // 3}" if number % 2 else f"premise {number // 3}", "label": number % 2}
        for number in range(3000)
    ]
    as_jsonl(tmp_path / "rows.jsonl.gz", table)
    as_jsonl(tmp_path / "other.jsonl.gz", [{"text": f"text {number}", "label": number % 2} for number in range(40)])
    held_out = {}
    for vocab_size in (270, 290):
        files = {"validation_files": [str(tmp_path / "other.jsonl.gz")], "vocab_size": vocab_size}
        data = group(tmp_path / "rows.jsonl.gz", **files)
        prepared = prepare_labelled(data, Columns("label"), tmp_path / "root")
        texts = [row.text for row in labelled_rows(TextFiles.from_data(data), Columns("label"), "train")]
        held_out[vocab_size] = is_selection(prepared.train_rows, 0.2)
    assert np.array_equal(held_out[270], held_out[290]), "the tokenizer has no say"
    assert 0.15 < held_out[270].mean() < 0.25
    by_text: dict[str, set[bool]] = {}
    for text, is_held_out in zip(texts, held_out[270].tolist(), strict=True):
        by_text.setdefault(" ".join(text.split()), set()).add(is_held_out)
    assert all(len(found) == 1 for found in by_text.values())
    assert not (held_out[270] & ~is_selection(prepared.train_rows, 0.4)).any(), "a larger share has the smaller one"
    trained = training_rows(prepared.train_rows, 0.2)
    assert trained is not None and np.array_equal(trained, np.flatnonzero(~held_out[270]))


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_a_share_that_holds_out_no_row_or_all_is_refused(prepared: LabelledData, share: float) -> None:
    with pytest.raises(UserError, match=r"^task\.selection_share=.* must be 0, or a share"):
        training_rows(prepared.train_rows, share)
    assert training_rows(prepared.train_rows, 0.0) is None


def test_validation_rows_that_are_trained_on_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    as_jsonl(tmp_path / "rows.jsonl.gz", rows(40))
    as_jsonl(tmp_path / "test.jsonl.gz", [*rows(7), {**rows(1)[0], "hypothesis": "another"}])
    data = group(tmp_path / "rows.jsonl.gz", validation_files=[str(tmp_path / "test.jsonl.gz")])
    assert prepare_labelled(data, PAIRS, tmp_path / "root").repeated == 7
    assert "7 of 8 validation rows have the same texts as a training row" in caplog.text
    assert prepare_labelled(data, PAIRS, tmp_path / "root").repeated == 7, "read again"


def test_rows_that_lack_something_repeat_or_are_broken_are_counted_and_stay_counted(tmp_path: Path) -> None:
    lines = [
        *(b'{"text": "row %d", "label": %d}' % (number, number % 2) for number in range(40)),
        *(b'{"text": "row 3", "label": 1}', b'{"text": " row  3 ", "label": 1}'),
        *(b'{"text": "  ", "label": 1}', b'{"text": null, "label": 1}', b'{"text": "no label"}'),
        *(b'{"text": "not \xff text", "label": 0}', b'{"text": "%s", "label": 0}' % (b"x " * 500_000)),
    ]
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "held.jsonl").write_bytes(b'{"text": "row 3", "label": 0}\n{"text": "", "label": 0}')
    held = [str(tmp_path / "held.jsonl")]
    data = group(tmp_path / "train.jsonl", validation_files=held, invalid="replace")
    for when in ("built", "read again"):
        train, validation = prepare_labelled(data, Columns("label"), tmp_path / "root").text_rows()
        assert (train.documents, train.blank_rows, train.repeated_documents, train.replaced_rows) == (44, 3, 2, 1), when
        assert (train.long_documents, train.longest, train.trained_documents) == (1, 1_000_000, None), when
        assert (validation.documents, validation.blank_rows, validation.trained_documents) == (1, 1, 1), when
        assert (validation.repeated_documents, validation.replaced_rows, validation.longest) == (None, 0, 5), when


def test_one_file_for_both_splits_is_counted_once_and_data_of_before_is_read(tmp_path: Path) -> None:
    as_jsonl(tmp_path / "rows.jsonl.gz", [*rows(), {"text": None, "hypothesis": "x", "label": 1}])
    data = group(tmp_path / "rows.jsonl.gz")
    made = prepare_labelled(data, PAIRS, tmp_path / "root")
    assert [row.blank_rows for row in made.text_rows()] == [1, None]
    meta = read_sealed(made.folder / META)
    del meta["facts"]
    write_sealed(made.folder / META, meta)
    again = prepare_labelled(data, PAIRS, tmp_path / "root")
    assert again.read is None and [row.blank_rows for row in again.text_rows()] == [None, None]


def test_classes_are_in_the_order_of_their_labels() -> None:
    assert sorted_labels({"10", "9", "-1"}) == ["-1", "9", "10"]
    assert sorted_labels({"10", "9", "a"}) == ["10", "9", "a"]


@pytest.mark.parametrize("name", ["train.bin", "validation.npy", "tokenizer.json", "meta.json"])
def test_damaged_data_is_built_again_and_whole_data_is_not(
    prepared: LabelledData, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, data = prepared.folder.parent, group(prepared.folder.parents[1] / "rows.jsonl.gz")
    before = prepared.train_rows.copy()
    written = (prepared.folder / "meta.json").stat().st_mtime_ns
    prepare_labelled(data, PAIRS, root)
    assert (prepared.folder / "meta.json").stat().st_mtime_ns == written
    damaged = prepared.folder / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.unlink()
    damaged.write_bytes(content)
    again = prepare_labelled(data, PAIRS, root)
    assert np.array_equal(again.train_rows, before)


@pytest.mark.parametrize(
    ("table", "columns", "more", "message"),
    [
        (rows(), Columns("kind"), {}, "^task.label_column=kind is not valid: "),
        (rows(), Columns("label", "other"), {}, "^task.second_text_column=other is not valid: "),
        (rows(), Columns("label"), {"text_column": "sentence"}, "^data.text_column=sentence is not valid: "),
        (
            texts_with(lambda number: 0.5),
            Columns("label"),
            {},
            "^task.label_column=label is not valid: .*column of text",
        ),
        (texts_with(lambda number: number), Columns("label"), {}, "labels in validation are among"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    table: Table, columns: Columns, more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    as_jsonl(tmp_path / "rows.jsonl.gz", table)
    with pytest.raises(UserError, match=message) as error:
        prepare_labelled(group(tmp_path / "rows.jsonl.gz", **more), columns, tmp_path / "root")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", ["NaN", '"good"', "1e300", '"inf"'])
def test_a_label_that_is_no_finite_number_is_refused_in_one_line(label: str, tmp_path: Path) -> None:
    table = [json.dumps({"text": f"row {number}", "label": number / 4}) for number in range(40)]
    table[-1] = table[-1].replace("9.75", label)
    (tmp_path / "rows.jsonl").write_text("\n".join(table))
    with pytest.raises(UserError, match=r"^task\.label_column=label .* must be a column of finite numbers") as error:
        prepare_labelled(group(tmp_path / "rows.jsonl"), Columns("label", None, True), tmp_path / "root")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", FORMATS)
def test_numbers_are_the_same_from_every_format(name: str, tmp_path: Path) -> None:
    table = [{"text": f"row {number}", "label": number / 4 - 3} for number in range(40)]
    FORMATS[name](tmp_path / name, table)
    prepared = prepare_labelled(group(tmp_path / name), Columns("label", None, True), tmp_path / "root")
    batch = prepared.rows("train", np.arange(len(prepared.train_rows)), 12)
    assert batch["labels"].dtype == np.float32 and prepared.labels == ()
    files = TextFiles.from_data(group(tmp_path / name))
    expected = [float(row.label) for row in labelled_rows(files, Columns("label", None, True), "train")]
    assert batch["labels"].flatten().tolist() == expected and len(set(expected)) > 20


def test_plain_text_has_no_labels(tmp_path: Path) -> None:
    (tmp_path / "prose.txt").write_text("\n\n".join(f"word {number} " * 100 for number in range(50)))
    with pytest.raises(UserError, match=r"^data.files=.*prose.txt.*tables with a column of labels"):
        prepare_labelled(group(tmp_path / "prose.txt", split="documents"), Columns("label"), tmp_path / "root")
