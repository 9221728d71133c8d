from __future__ import annotations

import pytest

from trainlarge.data.corpus import corpus
from trainlarge.data.stdlib import Stdlib, source_files
from trainlarge.errors import UserError


def test_splits_are_disjoint_complete_and_stable():
    source = corpus({"name": "stdlib"})
    train, validation = list(source.documents("train")), list(source.documents("validation"))
    assert not set(train) & set(validation)
    assert 0.02 < len(validation) / (len(train) + len(validation)) < 0.1
    assert train == list(corpus({"name": "stdlib"}).documents("train"))
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
    source = Stdlib(tmp_path, 0.5)
    assert [*source.documents("train"), *source.documents("validation")] == ["x = 'é'\n"]


def test_python_without_sources_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("trainlarge.data.stdlib._root", lambda: tmp_path)
    with pytest.raises(UserError, match="no Python source text"):
        corpus({"name": "stdlib"})
