from __future__ import annotations

import datasets
import pytest

from groups import data_group
from trainlarge.data.corpus import corpus
from trainlarge.data.hub import HubText
from trainlarge.errors import UserError


def test_data_set_that_cannot_be_had_is_told_in_one_line():
    source = corpus(data_group({"name": "text", "hub": "trainlarge-tests/there-is-no-such-data-set"}))
    for ask in (source.contents, lambda: list(source.documents("train"))):
        with pytest.raises(UserError, match="a network to reach it") as caught:
            ask()
        assert caught.value.key == "data.hub" and "\n" not in str(caught.value)


def test_files_and_hub_exclude_each_other(text_file):
    with pytest.raises(UserError, match=r"null with data\.files"):
        corpus(data_group({"name": "text", "hub": "a/b", "files": [str(text_file)]}))


def test_rows_of_a_loaded_data_set_are_split_by_their_text(monkeypatch):
    rows = datasets.Dataset.from_dict({"body": [f"document {i}" for i in range(200)]})
    asked = []
    monkeypatch.setattr("trainlarge.data.hub.hub_commit", lambda name: "c0ffee")
    monkeypatch.setattr("datasets.load_dataset", lambda *names, **options: asked.append((names, options)) or rows)
    source = corpus(data_group({"name": "text", "hub": "a/b:small", "text_column": "body", "validation_share": 0.2}))
    assert isinstance(source, HubText)
    train, validation = set(source.documents("train")), set(source.documents("validation"))
    assert train | validation == set(rows["body"]) and not train & validation and 20 < len(validation) < 60
    assert asked[0] == (("a/b", "small"), {"split": "train", "revision": "c0ffee"})
    assert source.contents()["commit"] == "c0ffee"


def test_streamed_rows_are_those_of_the_download(monkeypatch):
    rows = datasets.Dataset.from_dict({"text": [f"document {i}" for i in range(50)]})
    asked = []

    def load(*names, streaming=False, **_options):
        asked.append(streaming)
        return rows.to_iterable_dataset() if streaming else rows

    monkeypatch.setattr("trainlarge.data.hub.hub_commit", lambda name: "c0ffee")
    monkeypatch.setattr("datasets.load_dataset", load)
    whole, streamed = (data_group({"name": "text", "hub": "a/b", "streaming": mode}) for mode in (False, True))
    assert list(corpus(streamed).documents("train")) == list(corpus(whole).documents("train"))
    assert asked == [True, False] and whole.identity_json == streamed.identity_json


def test_several_data_sets_are_sources(monkeypatch):
    names = {"a/one": "first", "a/two": "second"}
    monkeypatch.setattr("trainlarge.data.hub.hub_commit", lambda name: f"commit of {name}")
    monkeypatch.setattr(
        "datasets.load_dataset",
        lambda name, *_, **__: datasets.Dataset.from_dict({"text": [f"{names[name]} {i}" for i in range(40)]}),
    )
    sources = {name.replace("/", "_"): {"hub": name} for name in names}
    source = corpus(data_group({"name": "text", "sources": sources}))
    read = [text for split in ("train", "validation") for text in source.documents(split)]
    assert sorted(read) == sorted(f"{word} {i}" for word in names.values() for i in range(40))
    commits = [part["commit"] for part in source.contents()["sources"].values()]
    assert commits == ["commit of a/one", "commit of a/two"]
