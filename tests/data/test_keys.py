"""Keys of the group ``data`` that the chosen corpus does not read are refused, old ones mean what they did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from groups import data_group
from trainlarge.cli import main
from trainlarge.config.plain import from_plain, to_plain
from trainlarge.config.schema import TrainConfig
from trainlarge.data.corpus import check_keys
from trainlarge.data.fingerprint import resolved_data
from trainlarge.errors import UserError
from trainlarge.sweep.cell import Cell
from trainlarge.training.cells import STAGE

Compose = Callable[..., TrainConfig]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of each kind that keys distinguish."""
    (tmp_path / "a.txt").write_text("some text\n\n" * 2000)
    (tmp_path / "b.txt").write_text("other text\n\n" * 2000)
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    (tmp_path / "d.csv").write_text("text\na\nb\n")
    return tmp_path


UNREAD = [
    ({"name": "stdlib", "files": ["my.txt"]}, r"data.files=\['my.txt'\] is not valid: must be \[\] unless data=text"),
    (
        {"name": "stdlib", "validation_files": ["my.txt"]},
        r"data.validation_files=.* is not valid: must be \[\] unless data=text",
    ),
    ({"name": "stdlib", "hub": "a/b"}, "data.hub=a/b is not valid: must be null unless data=text"),
    ({"name": "stdlib", "text_column": "body"}, "data.text_column=body is not valid: must be text unless data=text"),
    ({"name": "stdlib", "encoding": "latin-1"}, "data.encoding=latin-1 is not valid: must be utf-8 unless data=text"),
    ({"name": "stdlib", "separator": ";"}, "data.separator=; is not valid: must be null unless data=text"),
    (
        {"name": "text", "hub": "a/b", "validation_files": ["a.txt"]},
        "data.validation_files=.* takes the place of data.hub",
    ),
    ({"name": "text", "hub": "a/b", "separator": ";"}, "data.separator=; is not valid: .* takes the place of data.hub"),
    (
        {"name": "text", "files": ["a.txt"], "text_column": "body"},
        "data.text_column=body is not valid: .* ending in .jsonl, .json",
    ),
    (
        {"name": "text", "files": ["c.jsonl"], "separator": ";"},
        "data.separator=; is not valid: .* ending in .csv, .tsv",
    ),
    (
        {"name": "text", "files": ["a.txt"], "validation_files": ["b.txt"], "validation_share": 0.1},
        "data.validation_share=0.1 is not valid: must be 0.05 unless data.validation_files is empty",
    ),
    (
        {"name": "text", "files": ["a.txt"], "validation_files": ["b.txt"], "split": "grouped"},
        "data.split=grouped is not valid: must be null with data.validation_files",
    ),
]


@pytest.mark.parametrize(("data", "message"), UNREAD)
def test_a_key_that_the_corpus_does_not_read_is_refused(folder: Path, data: dict[str, Any], message: str) -> None:
    here = {key: [str(folder / name) for name in value] for key, value in data.items() if key.endswith("files")}
    data = data | here if data["name"] == "text" else data
    with pytest.raises(UserError, match=message) as caught:
        check_keys(data_group(data))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "data.files=[my.txt]"],
        ["train", "-m", "data.text_column=body,text"],
        ["plan", "train", "data.validation_files=[my.txt]"],
        ["plan", "train", "data.separator=tab"],
    ],
)
def test_every_verb_refuses_it_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "tracking=none"]) == 2
    assert "unless data=text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", "web", "one of stdlib, text"),
        ("validation_share", 1.0, "a number above 0 and below 1"),
        ("fraction", 0.0, "a number above 0 and at most 1"),
        ("vocab_size", 100, "a whole number of at least 260: 256 bytes and the special tokens"),
        ("sequence_length", 1, "a whole number of at least 2"),
        ("encoding", "no-such", "an encoding of text"),
        ("encoding", "base64", "an encoding of text"),
        ("encoding", "rot13", "an encoding of text"),
        ("separator", "ab", "one character"),
        ("separator", '"', "one character"),
        ("separator", "\n", "one character"),
        ("split", "random", "one of documents, grouped, null"),
        ("validation_files", ["b.txt"], "null with data.validation_files"),
    ],
)
def test_the_group_itself_refuses_wrong_values(key: str, value: Any, message: str) -> None:
    named = "split=grouped" if key == "validation_files" else f"{key}="
    with pytest.raises(UserError, match=f"^data.{named}.* is not valid: must be {message}"):
        data_group({"name": "text", "files": ["d.csv"], "split": "grouped", key: value})


def test_resolving_fills_in_the_rule_and_one_name_for_the_encoding(folder: Path) -> None:
    data = data_group({"name": "text", "files": [str(folder / "a.txt")], "split": None, "encoding": "latin1"})
    resolved = resolved_data(data)
    assert resolved.split == "grouped" and resolved.encoding == "iso8859-1" == resolved_data(resolved).encoding
    assert resolved_data(resolved) == resolved
    held_out = resolved_data(replace(data, encoding="utf-8", validation_files=(str(folder / "b.txt"),)))
    assert held_out.split == "documents" and resolved_data(held_out) == held_out


def test_a_configuration_from_before_the_keys_keeps_its_id_and_its_split(compose: Compose, folder: Path) -> None:
    overrides = ["study=tiny", "data=text", f"data.files=[{folder / 'a.txt'}]"]
    new, first = (STAGE.resolve(compose("train", *overrides, *more)) for more in ([], ["data.split=documents"]))
    assert Cell("train", of_before(first)).id == Cell("train", first).id != Cell("train", new).id
    assert of_before(first) == first and new.data.fingerprint != first.data.fingerprint


def test_held_out_files_keep_the_ids_of_before(compose: Compose, folder: Path) -> None:
    overrides = [f"data.files=[{folder / 'a.txt'}]", f"data.validation_files=[{folder / 'b.txt'}]"]
    now = STAGE.resolve(compose("train", "study=tiny", "data=text", *overrides))
    assert Cell("train", of_before(now)).id == Cell("train", now).id


def of_before(config: TrainConfig) -> TrainConfig:
    """The configuration as it is read from a file that is older than some keys."""
    written = to_plain(config)
    data = {key: value for key, value in config.data.plain.items() if key not in ("split", "encoding", "separator")}
    return from_plain(TrainConfig, {**written, "data": data})
