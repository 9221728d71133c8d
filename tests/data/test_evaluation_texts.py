"""Texts of ``data.evaluations``: from files to the columns of a study."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from groups import data_group
from trainlarge.config.data import DataConfig
from trainlarge.data.corpus import corpus, evaluation_text
from trainlarge.data.evaluation_texts import look_at_evaluations, prepare_evaluations
from trainlarge.data.fingerprint import resolved_data
from trainlarge.data.prepare import prepare
from trainlarge.data.tokenizer import load_tokenizer
from trainlarge.errors import UserError
from trainlarge.results.columns import CELLS, COMPRESSION
from trainlarge.results.nested import Nested
from trainlarge.results.text_columns import check_texts, meaning_of, text_columns

ROWS = [f"row {i} of another domain " + "x = y + 1; " * 30 for i in range(40)]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other") / "other.jsonl"
    path.write_text("".join(json.dumps({"body": text}) + "\n" for text in [*ROWS, ""]))
    return path


def with_texts(data: DataConfig, **texts: object) -> DataConfig:
    return data_group({**data.plain, "evaluations": texts})


def test_all_of_the_files_is_read_by_the_tokenizer_of_the_cell(data, other, tmp_path):
    cell = resolved_data(with_texts(data, other={"files": [str(other)], "text_column": "body"}))
    prepared = prepare(cell, tmp_path)
    texts = prepare_evaluations(cell, prepared, tmp_path)
    tokenizer = load_tokenizer(prepared.tokenizer_file)
    expected = [[*tokenizer.encode(text, add_special_tokens=False).ids, prepared.sep_id] for text in ROWS]
    np.testing.assert_array_equal(texts["other"].prepared.validation, np.concatenate(expected))
    np.testing.assert_array_equal(texts["other"].prepared.train, prepared.train)
    other.rename(other.with_suffix(".moved"))
    # Prepared once, for every cell with this tokenizer: the text itself is needed no more.
    again = prepare_evaluations(cell, prepared, tmp_path)
    other.with_suffix(".moved").rename(other)
    np.testing.assert_array_equal(again["other"].prepared.validation, texts["other"].prepared.validation)


def test_documents_that_are_trained_on_too_are_counted_and_warned_of(data, prepared, tmp_path, caplog):
    trained, held_out = (next(iter(corpus(data).documents(split))) for split in ("train", "validation"))
    path = tmp_path / "copied.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in [*ROWS, trained.replace(" ", "\n"), held_out])
    )
    texts = prepare_evaluations(with_texts(data, copied={"files": [str(path)]}), prepared, tmp_path / "root")
    assert (texts["copied"].row.documents, texts["copied"].row.trained_documents) == (42, 1)
    assert "1 of 42 documents of data.evaluations.copied stand in the training text too" in caplog.text
    older = replace(prepared, training_keys=None)
    texts = prepare_evaluations(with_texts(data, copied={"files": [str(path)]}), older, tmp_path / "root")
    assert texts["copied"].row.trained_documents is None, "prepared before keys were kept"


def test_a_text_that_is_trained_on_is_refused_whatever_it_is_called(data, other, tmp_path):
    (trained,) = data.files
    copy = tmp_path / "copy.txt"
    copy.write_bytes(Path(trained).read_bytes())
    for path in (trained, str(copy)):
        with pytest.raises(UserError) as caught:
            resolved_data(with_texts(data, prose={"files": [str(other), path]}))
        allowed = "must be files whose contents are not trained on, as those of data.files are"
        assert str(caught.value) == f"data.evaluations.prose.files={path} is not valid: {allowed}"
    mixed = {"name": "text", "sources": {"a": {"files": [trained]}, "b": {"files": [str(other)]}}}
    with pytest.raises(UserError, match=r"must be .* as those of data\.sources\.a\.files are$"):
        resolved_data(with_texts(data_group(mixed), prose={"files": [str(copy)]}))
    # What validates may be evaluated on apart from the rest.
    files = {"files": [str(other)], "text_column": "body", "validation_files": [trained]}
    apart = data_group({"name": "text", **files})
    assert resolved_data(with_texts(apart, prose={"files": [trained]})).evaluations_fingerprint


def test_a_data_set_of_the_hub_that_is_trained_on_is_refused(data):
    for keys in ({"hub": "owner/name"}, {"sources": {"a": {"hub": "owner/name"}, "b": {"files": ["b.txt"]}}}):
        with pytest.raises(UserError, match=r"^data\.evaluations\.web\.hub=Owner/Name is not valid: must be another"):
            with_texts(data_group({"name": "text", **keys}), web={"hub": "Owner/Name"})
        with_texts(data_group({"name": "text", **keys}), web={"hub": "owner/name:other"})


def test_contents_and_not_paths_are_in_the_identity(data, other, tmp_path):
    cell = resolved_data(with_texts(data, other={"files": [str(other)], "text_column": "body"}))
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(other.read_bytes())
    moved = resolved_data(with_texts(data, other={"files": [str(copy)], "text_column": "body"}))
    assert moved.identity_json == cell.identity_json != resolved_data(data).identity_json
    assert moved.fingerprint == resolved_data(data).fingerprint
    copy.write_text('{"body": "changed"}\n')
    assert resolved_data(with_texts(data, other={"files": [str(copy)], "text_column": "body"})) != cell
    renamed = resolved_data(with_texts(data, name2={"files": [str(other)], "text_column": "body"}))
    assert renamed.identity_json != cell.identity_json


def test_standard_library_is_evaluated_on_what_it_holds_out(data):
    source = evaluation_text(with_texts(data, code={"name": "stdlib"}), "code")
    held_out = corpus(data_group({"name": "stdlib", "split": "grouped"})).documents("validation")
    assert list(source.documents("validation")) == list(held_out)
    with pytest.raises(UserError, match=r"^data\.evaluations\.code\.name=stdlib is not valid: must be text where"):
        with_texts(data_group({"name": "stdlib"}), code={"name": "stdlib"})


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        ({"other": {}}, r"data\.evaluations\.other\.files=\[\] is not valid: must be a list of files"),
        ({"other": {"files": ["no/such"]}}, r"data\.evaluations\.other\.files=no/such is not valid"),
        ({"other": {"files": ["OTHER"]}}, r"data\.evaluations\.other\.text_column=text is not valid: must be one of"),
        ({"other": {"files": ["EMPTY"]}}, r"data\.evaluations\.other\.files=\[.*\] is not valid: must be files that"),
        ({"train": {"files": ["OTHER"]}}, r"data\.evaluations=train is not valid: must be another name"),
        ({"a b": {"files": ["OTHER"]}}, r"data\.evaluations=a b is not valid"),
        ({"web": {"hub": "trainlarge-tests/none"}}, r"data\.evaluations\.web\.hub=.* with a network to reach it"),
    ],
)
def test_a_wrong_text_is_told_in_one_line_before_anything_runs(data, other, tmp_path, texts, error):
    (tmp_path / "empty.txt").write_text("\n")
    places = {"OTHER": str(other), "EMPTY": str(tmp_path / "empty.txt")}
    for text in texts.values():
        text["files"] = [places.get(file, file) for file in text.get("files", [])]
    with pytest.raises(UserError, match=f"^{error}") as caught:
        look_at_evaluations(with_texts(data, **texts))
    assert "\n" not in str(caught.value)


def test_a_text_that_changed_since_the_cell_was_frozen_is_refused(data, other, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(other.read_bytes())
    cell = resolved_data(with_texts(data, other={"files": [str(copy)], "text_column": "body"}))
    copy.write_text('{"body": "changed"}\n')
    prepared = prepare(cell, tmp_path / "root")
    with pytest.raises(UserError, match=r"data\.evaluations_fingerprint=.*a text has changed since"):
        prepare_evaluations(cell, prepared, tmp_path / "root")
    short = replace(cell, evaluations_fingerprint=None, sequence_length=1000)
    with pytest.raises(UserError, match=r"^data\.evaluations\.other\.sequence_length=1000 is not valid: must be 1 to"):
        prepare_evaluations(resolved_data(short), prepared, tmp_path / "root")


def test_columns_of_texts_and_sources():
    records = [
        {"loss": 2.0, "evaluations": {"books": {"loss": 2.5, "accuracy": 0.5, "fingerprint": "a"}}, "data": {}},
        {"loss": 3.0, "data": {"sources": {"wiki": {"tokens": 8, "share": 0.5, "epochs": 2.0}}}},
        {"loss": None, "data": {}},
    ]
    frame = text_columns(Nested(records))
    assert list(frame) == [
        "books_loss",
        "books_accuracy",
        "books_gap",
        "wiki_tokens",
        "wiki_share",
        "wiki_epochs",
        "wiki_weight",
    ]
    assert frame["books_gap"][0] == 0.5 and frame["books_gap"].isna()[1:].all() and frame["wiki_tokens"][1] == 8
    assert all(meaning_of(name) for name in frame) and meaning_of("width") is None
    check_texts(Nested(records))
    mixed = [*records, {"loss": 1.0, "evaluations": {"books": {"loss": 1.0, "fingerprint": "b"}}, "data": {}}]
    with pytest.raises(UserError, match=r"^data\.evaluations\.books=several texts"):
        check_texts(Nested(mixed))


def test_no_name_makes_a_column_that_is_there_already(data, other):
    suffixes = ("_loss", "_accuracy", "_gap", "_tokens", "_share", "_epochs", "_weight")
    stems = {name.removesuffix(end) for name in (*CELLS, *COMPRESSION) for end in suffixes if name.endswith(end)}
    for stem in stems:
        if stem.isidentifier():
            with pytest.raises(UserError):
                with_texts(data, **{stem: {"files": [str(other)]}})
