from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from groups import data_group
from trainlarge.data.overlap import MOST_PASSAGES, Overlap, OverlapCounter, PartOverlap
from trainlarge.data.prepare import prepare
from trainlarge.sweep.sealed import read_sealed, write_sealed


def prose(words: int, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join(str(draw.random()) for _ in range(words))


def overlap(validation: list[str], train: list[str]) -> Overlap:
    counter = OverlapCounter()
    assert list(counter.validation(validation)) == validation and list(counter.training(train)) == train
    return counter.result()


def test_texts_that_share_nothing() -> None:
    found = overlap([prose(50, i) for i in range(40)], [prose(50, i) for i in range(100, 140)])
    assert (found.validation_documents, found.duplicates, found.passages_in_training) == (40, 0, 0)
    assert found.passages > 40 * 50 * 17 // 50 - 80


def test_duplicates_are_found_whatever_their_white_space_and_order() -> None:
    texts = [prose(30, i) for i in range(40)]
    copies = [texts[3].replace(" ", "\n  "), texts[7] + "\n", texts[7]]
    found = overlap([*texts, texts[3]], [*(prose(30, i) for i in range(50, 90)), *copies])
    assert found.validation_documents == 41 and found.duplicates == 3


@pytest.mark.parametrize("words", [20, 20_000])
def test_the_share_of_passages_is_that_of_the_copied_text(words: int) -> None:
    texts = [prose(words, i) for i in range(10)]
    train = [prose(words, 99), f"before {texts[0]} after", f"{texts[1]}", texts[2][: len(texts[2]) // 2]]
    found = overlap(texts, train)
    assert found.duplicates == 1 and found.passages <= MOST_PASSAGES
    assert found.passages_in_training / found.passages == pytest.approx(0.25, abs=0.02)


def test_a_passage_does_not_cross_documents() -> None:
    assert overlap(["a" * 30 + " " + "b" * 30], ["a" * 30, "b" * 30]).passages_in_training == 0
    assert overlap(["short"], ["short"]) == Overlap(1, 1, 0, 0, training_documents=1, repeated=0)
    shares = {"overlap_documents": 1.0, "overlap_passages": None, "repeated_documents": 0.0}
    assert overlap(["short"], ["short"]).shares() == shares


def test_documents_that_repeat_one_before_them_are_counted_whatever_the_white_space() -> None:
    counted = overlap(["held out"], ["one  two", "other", "one two\n", "other", "third"])
    assert (counted.training_documents, counted.repeated) == (5, 2)


def test_each_part_has_counts_of_its_own_that_sum_to_those_of_the_whole() -> None:
    counter = OverlapCounter()
    for part in (["held", "both"], ["both", "also held"]):
        list(counter.validation(part))
    for part in (["one", "one", "both"], [], ["two", "one", "also  held", "two"]):
        list(counter.training(part))
    list(counter.validation([]))
    parts, whole = counter.of_parts(), counter.result()
    assert parts == [PartOverlap(1, 1), PartOverlap(2, 0), PartOverlap(0, 2)]
    assert (whole.duplicates, whole.repeated, whole.training_documents) == (3, 3, 7)
    assert len(counter.training_keys()) == 4


def test_copied_rows_are_counted_told_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "trainlarge")
    rows = [prose(20, i) for i in range(300)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*rows[:280], "", " "]))
    held_out = [*rows[270:], None]
    (tmp_path / "held_out.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in held_out))
    files = {"files": [str(tmp_path / "train.jsonl")], "validation_files": [str(tmp_path / "held_out.jsonl")]}
    data = data_group({"name": "text", "vocab_size": 300, **files})
    built = prepare(data, tmp_path / "root")
    printed = caplog.messages
    text = "\n".join(printed)
    assert "warning: 10 of 30 validation documents stand in the training text too" in text
    assert "2 of 282 rows have no text" in text and "1 of 31 rows have no text" in text
    assert "33.3% of the validation text" in text
    caplog.clear()
    again = prepare(data, tmp_path / "root")
    assert again.facts == built.facts and caplog.messages == printed
    assert built.facts and built.facts.overlap.shares()["overlap_documents"] == pytest.approx(1 / 3)
    train, held_out = built.text_rows()
    assert (train.documents, train.blank_rows, train.repeated_documents) == (280, 2, 0)
    assert (held_out.documents, held_out.blank_rows, held_out.trained_documents) == (30, 1, 10)
    assert built.training_keys is not None and len(built.training_keys) == 280


def test_data_that_was_prepared_before_the_count_has_no_facts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(prose(60, i) for i in range(40)))
    keys = {"name": "text", "files": [str(tmp_path / "a.txt")], "vocab_size": 300, "split": "grouped"}
    data = data_group(keys)
    built = prepare(data, tmp_path / "root")
    meta = read_sealed(built.folder / "meta.json")
    facts = {key: value for key, value in meta.items() if key not in ("rows", "overlap")}
    write_sealed(built.folder / "meta.json", facts)
    again = prepare(data, tmp_path / "root")
    assert built.facts and again.facts is None and again.text_rows() == []
