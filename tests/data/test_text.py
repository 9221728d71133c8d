from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from groups import data_group
from trainlarge.data.corpus import Corpus, corpus
from trainlarge.data.formats import Reading
from trainlarge.data.text import read_documents
from trainlarge.errors import UserError

TEXTS = ["one line", "two\nlines", "naïve 模型 🙂", "NA", "12", 'quoted "x", y']
COMPRESS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


def as_jsonl(column: str) -> bytes:
    return "".join(json.dumps({"id": i, column: text}) + "\n" for i, text in enumerate(TEXTS)).encode()


def as_json(column: str) -> bytes:
    return json.dumps([{"id": i, column: text} for i, text in enumerate(TEXTS)]).encode()


def as_csv(column: str) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows([["id", column], *enumerate(TEXTS)])
    return file.getvalue().encode()


def as_parquet(column: str) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": range(len(TEXTS)), column: TEXTS}), file)
    return file.getvalue()


WRITERS = {".jsonl": as_jsonl, ".json": as_json, ".csv": as_csv, ".parquet": as_parquet}
KINDS = [
    (suffix, end)
    for suffix in WRITERS
    for end in COMPRESS
    if (suffix, end) not in {(".parquet", ".gz"), (".parquet", ".zst")}
]


@pytest.mark.parametrize(("suffix", "end"), KINDS)
@pytest.mark.parametrize("column", ["text", "body"])
def test_rows_come_back_from_every_tabular_format(tmp_path, suffix, end, column):
    path = tmp_path / f"a{suffix}{end}"
    path.write_bytes(COMPRESS[end](WRITERS[suffix](column)))
    assert list(read_documents(path, Reading(column))) == TEXTS


@pytest.mark.parametrize("end", COMPRESS)
def test_plain_text_comes_back(tmp_path, end):
    text = "\n\n".join(f"paragraph {i} naïve " + "word " * 100 + "." for i in range(20))
    path = tmp_path / f"a.txt{end}"
    path.write_bytes(COMPRESS[end](text.encode()))
    assert "\n\n".join(read_documents(path, Reading("text"))) == text


@pytest.mark.parametrize("folder", ["plain", "[a] *?", ".hidden", "per%20cent", "a b"])
def test_odd_folder_names(tmp_path, folder):
    path = tmp_path / folder / "a.txt"
    path.parent.mkdir()
    path.write_text("hello")
    held_out = path.with_name("b.txt")
    held_out.write_text("held out")
    names = {"files": [str(path)], "validation_files": [str(held_out)]}
    assert list(corpus(data_group({"name": "text", **names})).documents("train")) == ["hello"]
    assert list(corpus(data_group({"name": "text", **names})).documents("validation")) == ["held out"]


def test_nothing_is_left_in_the_cache_folders(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "temporary").mkdir()
    (tmp_path / "a.jsonl").write_bytes(as_jsonl("text"))
    assert next(read_documents(tmp_path / "a.jsonl", Reading("text"))) == TEXTS[0]
    assert not list((tmp_path / "temporary").iterdir()) and not (tmp_path / "cache").exists()
    assert capfd.readouterr() == ("", "")


def test_patterns_home_and_mixed_formats(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "b.txt").write_text("from the text")
    (tmp_path / "a.csv").write_bytes(as_csv("text"))
    files = ["~/**/*.txt", "~/*.csv", "~/a.csv"]
    source = corpus(data_group({"name": "text", "files": files, "validation_share": 0.5}))
    assert sorted([*source.documents("train"), *source.documents("validation")]) == sorted(["from the text", *TEXTS])


def mixed(folder: Path, jsonl: str, table: str) -> Corpus:
    """The same two files under the given names."""
    folder.mkdir()
    (folder / jsonl).write_bytes(as_jsonl("text"))
    (folder / table).write_bytes(as_csv("text").replace(b"one", b"won"))
    return corpus(data_group({"name": "text", "files": [str(folder / "*")], "validation_share": 0.5}))


def test_hashed_split_is_disjoint_and_independent_of_names(tmp_path):
    one, other = mixed(tmp_path / "1", "a.jsonl", "b.csv"), mixed(tmp_path / "2", "b.jsonl", "a.csv")
    train, validation = (list(one.documents(split)) for split in ("train", "validation"))
    assert train and validation and not set(train) & set(validation)
    assert train == list(other.documents("train")) and validation == list(other.documents("validation"))


def test_validation_files_are_the_validation_split(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(as_jsonl("text"))
    (tmp_path / "validation.txt").write_text("held out")
    names = {"files": [str(tmp_path / "train.jsonl")], "validation_files": [str(tmp_path / "validation.txt")]}
    source = corpus(data_group({"name": "text", **names}))
    assert list(source.documents("train")) == TEXTS
    assert list(source.documents("validation")) == ["held out"]


@pytest.mark.parametrize("same", ["path", "link", "copy"])
def test_a_file_that_trains_does_not_validate(tmp_path, same):
    train, held_out = tmp_path / "train.txt", tmp_path / "held_out.txt"
    train.write_text("one text")
    match same:
        case "path":
            held_out = train
        case "link":
            held_out.symlink_to(train)
        case "copy":
            held_out.write_text("one text")
    names = {"files": [str(train)], "validation_files": [str(tmp_path / "other.txt"), str(held_out)]}
    (tmp_path / "other.txt").write_text("another text")
    with pytest.raises(
        UserError, match=rf"data.validation_files={held_out} is not valid: must be files whose contents"
    ):
        corpus(data_group({"name": "text", **names})).contents()


def test_blank_and_missing_entries_and_empty_files_give_no_document(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": " "}\n{"text": null}\n{"text": ""}\n{"text": "x"}\n')
    (tmp_path / "b.jsonl").write_text("")
    assert list(read_documents(tmp_path / "a.jsonl", Reading("text"))) == ["x"]
    assert list(read_documents(tmp_path / "b.jsonl", Reading("text"))) == []


BROKEN = {
    "a.jsonl": b'{"text": "x"}\n{"text":',
    "a.txt": "café".encode("latin-1"),
    "a.txt.gz": gzip.compress(b"hello\n" * 1000)[:30],
    "b.txt.gz": b"not gzip",
    "a.txt.zst": b"not zstandard",
    "a.parquet": b"not parquet",
    "a.csv": b'text\n"never closed',
}


@pytest.mark.parametrize("name", BROKEN)
def test_unreadable_file_is_named_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(UserError, match=name) as caught:
        list(read_documents(tmp_path / name, Reading("text")))
    assert caught.value.key == "data.files" and "\n" not in str(caught.value)


def test_missing_column_lists_the_columns(tmp_path):
    (tmp_path / "a.csv").write_bytes(as_csv("body"))
    with pytest.raises(UserError, match=r"data\.text_column=text is not valid: must be one of the columns id, body"):
        list(read_documents(tmp_path / "a.csv", Reading("text")))


@pytest.mark.parametrize("key", ["files", "validation_files"])
@pytest.mark.parametrize("name", ["absent.txt", "*.jsonl", "empty", "a.docx", "a.parquet.gz", "a.gz"])
def test_missing_and_unsupported_files(tmp_path, key, name):
    for existing in ("a.txt", "a.docx", "a.parquet.gz", "a.gz"):
        (tmp_path / existing).write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        corpus(data_group({"name": "text", "files": [str(tmp_path / "a.txt")], key: [str(tmp_path / name)]}))
    assert caught.value.key == f"data.{key}"


def test_no_files_at_all():
    with pytest.raises(UserError, match=r"data\.hub"):
        corpus(data_group({"name": "text", "files": []}))


def test_articles_with_markup_are_cut_into_documents(tmp_path):
    """Lines of WikiText-2: titles between equals signs, blank lines of one space, whole paragraphs on a line."""
    lines = [line for article in range(60) for line in wikitext_article(article)]
    path = tmp_path / "valid.txt.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    documents = list(read_documents(path, Reading("text")))
    assert 60 < len(documents) < 600 and max(map(len, documents)) < 8_000
    assert [line.strip() for text in documents for line in text.split("\n") if line.strip()] == [
        line.strip() for line in lines if line.strip()
    ]


def wikitext_article(number: int) -> list[str]:
    paragraph = f" The article {number} @-@ as others <unk> – has “ words ” , 1 @.@ 5 of them . " * (3 + number % 7)
    return [" ", f" = Article {number} = ", " ", paragraph, " ", " = = Naïve section = = ", " ", *[paragraph, " "] * 4]


def book(chapters: int, seed: int) -> str:
    return "\n\n".join(f"{seed}:{chapter} " + "words of this paragraph " * 20 for chapter in range(chapters))


def test_the_newest_rule_cuts_a_book_at_one_place(tmp_path):
    for seed in range(2):
        (tmp_path / f"{seed}.txt").write_text(book(1000, seed))
    source = corpus(data_group({"name": "text", "files": [str(tmp_path)], "split": "grouped"}))
    train, validation = ("\n\n".join(source.documents(split)) for split in ("train", "validation"))
    for seed in range(2):
        whole = book(1000, seed)
        last = max(chapter for chapter in range(1000) if f"{seed}:{chapter} " in train)
        first = min(chapter for chapter in range(1000) if f"{seed}:{chapter} " in validation)
        assert first == last + 1 and 930 < last < 960
        assert whole.split("\n\n")[0] in train and whole.split("\n\n")[-1].strip() in validation


def test_the_newest_rule_keeps_short_files_whole(tmp_path):
    for seed in range(100):
        (tmp_path / f"{seed}.txt").write_text(book(6, seed))
    source = corpus(data_group({"name": "text", "files": [str(tmp_path)], "split": "grouped"}))
    sides = [{text.partition(":")[0] for text in source.documents(split)} for split in ("train", "validation")]
    # A document may begin in the middle of a file only if the file is cut.
    assert not sides[0] & sides[1] and len(sides[1]) == 5


def test_rows_that_differ_in_white_space_fall_on_one_side(tmp_path):
    rows = [f"row  {i}" for i in range(200)] + [f"row {i}\n" for i in range(200)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    found = {}
    for rule in ("documents", "grouped"):
        source = corpus(
            data_group({"name": "text", "files": [str(tmp_path / "a.jsonl")], "validation_share": 0.3, "split": rule})
        )
        sides = [{" ".join(text.split()) for text in source.documents(split)} for split in ("train", "validation")]
        found[rule] = len(sides[0] & sides[1])
    assert found["documents"] > 50 and found["grouped"] == 0


@pytest.mark.parametrize("line", ["word " * 100_000, "x" * 500_000])
def test_one_giant_line_is_cut_for_both_splits(tmp_path, line):
    (tmp_path / "a.txt").write_text(line)
    source = corpus(data_group({"name": "text", "files": [str(tmp_path / "a.txt")], "split": "grouped"}))
    train, validation = (list(source.documents(split)) for split in ("train", "validation"))
    assert "".join(train + validation) == line and 0.04 < len(validation) / len(train) < 0.06
    old = corpus(data_group({"name": "text", "files": [str(tmp_path / "a.txt")]}))
    assert sum(len(list(old.documents(split))) for split in ("train", "validation")) == 1
