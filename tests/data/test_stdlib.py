from __future__ import annotations

import pytest

from groups import data_group
from trainlarge.data.corpus import corpus
from trainlarge.data.near_duplicates import near_duplicates
from trainlarge.data.overlap import OverlapCounter
from trainlarge.data.stdlib import Stdlib, source_files
from trainlarge.errors import UserError


def test_splits_are_disjoint_complete_and_stable():
    source = corpus(data_group({"name": "stdlib"}))
    train, validation = list(source.documents("train")), list(source.documents("validation"))
    assert not set(train) & set(validation)
    assert 0.02 < len(validation) / (len(train) + len(validation)) < 0.1
    assert train == list(corpus(data_group({"name": "stdlib"})).documents("train"))
    assert sum(map(len, train)) > 5_000_000


def test_own_sources_only(tmp_path):
    kept = ["abc.py", "json/decoder.py", "test.py", "z/site.py"]
    left_out = [
        "site-packages/a.py",
        "pydoc_data/topics.py",
        "dist-packages/a.py",
        "test/a.py",
        "json/tests/a.py",
        "idlelib/idle_test/a.py",
        "lib2to3/tests/data/a.py",
        "__pycache__/a.py",
        "config-3.11-x86_64-linux-gnu/python-config.py",
        "_sysconfigdata__linux_x86_64-linux-gnu.py",
        "LICENSE.txt",
    ]
    for name in kept + left_out:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    assert list(source_files(tmp_path)) == kept


def test_files_that_are_not_utf8_or_blank_are_left_out(tmp_path):
    (tmp_path / "latin.py").write_bytes("# café\n".encode("latin-1"))
    (tmp_path / "blank.py").write_text(" \n")
    (tmp_path / "good.py").write_text("x = 'é'\n", encoding="utf-8")
    source = Stdlib(tmp_path, 0.5, "documents")
    assert [*source.documents("train"), *source.documents("validation")] == ["x = 'é'\n"]


def test_python_without_sources_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("trainlarge.data.stdlib._root", lambda: tmp_path)
    with pytest.raises(UserError, match="no Python source text"):
        corpus(data_group({"name": "stdlib"}))


def grouped() -> tuple[list[str], list[str]]:
    source = corpus(data_group({"name": "stdlib", "split": "grouped"}))
    return list(source.documents("train")), list(source.documents("validation"))


def test_the_newest_split_is_balanced_and_holds_no_tables() -> None:
    train, validation = grouped()
    characters = [sum(map(len, texts)) for texts in (train, validation)]
    assert 0.045 < characters[1] / sum(characters) < 0.06 and len(validation) > 40
    assert not set(train) & set(validation)
    tables = [
        sum(len(text) for text in texts if "charmap" in text) / sum(map(len, texts)) for texts in (train, validation)
    ]
    assert tables[1] < 0.01 and tables[0] < 0.04, "a third of the validation text of the first split"
    assert (train, validation) == grouped()


def test_the_newest_split_has_less_in_common_than_the_first() -> None:
    found = {}
    for rule in ("documents", "grouped"):
        source, counter = corpus(data_group({"name": "stdlib", "split": rule})), OverlapCounter()
        list(counter.validation(source.documents("validation")))
        list(counter.training(source.documents("train")))
        found[rule] = counter.result().shares()["overlap_passages"]
    assert found["grouped"] < 0.1 < 0.2 < found["documents"]


def test_near_duplicates_are_grouped() -> None:
    lines = [[f"this is line {line} of document {document} alone" for line in range(60)] for document in range(4)]
    lines[2][:30] = lines[0][:30]
    lines[3][:2] = lines[1][:2]
    assert near_duplicates(["\n".join(text) for text in lines]) == [[0, 2], [1], [3]]
    assert near_duplicates([]) == []
