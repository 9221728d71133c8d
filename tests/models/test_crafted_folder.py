"""Hugging Face folders whose small files hold anything: each reader refuses them in a line that names the folder."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainlarge.data.model_tokenizer import model_tokenizer
from trainlarge.data.tokenizer import hugging_face_tokenizer, train_tokenizer
from trainlarge.errors import UserError
from trainlarge.models.build import build_model, load_model
from trainlarge.models.family import Head
from trainlarge.models.model_folder import (
    architecture_of,
    check_positions,
    folder_digest,
    stored_weights,
    weight_count,
    weight_files,
)
from trainlarge.models.shape import Shape

SHAPE = Shape("roberta", 16, 1, 2, 2.0, vocab_size=300, positions=16, dropout=0.0)
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "model.safetensors.index.json")
CONTENTS = [
    b"", b"{}", b"[]", b"null", b"7", b'"a"', b"{", b"\xff\xfe", b"\0" * 9, b"{\xe4: 1}",
    b"[" * 100_000, b'{"a":' * 100_000, b"[" * 900 + b"]" * 900, b'{"model_type": 3}',
    b'{"model_type": "roberta", "hidden_size": ' + b"9" * 5000 + b"}",
    b'{"model_type": "bert", "vocab_size": NaN}', b'{"weight_map": 3}', b'{"weight_map": {"a": "../b.safetensors"}}',
    b'{"weight_map": {"a": 7}}', b'{"transformers_weights": "/etc/passwd"}', b'{"model": {"type": "BPE"}}',
    b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", b"\x02\0\0\0\0\0\0\0{}",
    b"\x01\0\0\0\0\0\0\0" + b"[" * 50_000,
]  # fmt: skip
VALUES = [None, True, -1, 0, 10**12, 1e308, "", "x", [], [[1]], {}, {"a": 1}, "../x", "some/kernel"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("folder") / "model"
    model = build_model(SHAPE, init_std=0.1, seed=0, attention="eager")
    model.save_pretrained(made)
    tokenizer = train_tokenizer(["a small text of words " * 50], 265)
    tokenizer.save(str(made.parent / "tokenizer.json"))
    hugging_face_tokenizer(made.parent / "tokenizer.json").save_pretrained(made)
    return made


READERS: list[Callable[[Path], object]] = [
    weight_files, stored_weights, weight_count, architecture_of, folder_digest,
    lambda folder: load_model(folder, head=Head.MASKED_LM),
    lambda folder: check_positions(folder, 8), lambda folder: model_tokenizer(folder, SHAPE.vocab_size)
]  # fmt: skip


def problems(folder: Path) -> Iterator[str]:
    for read in READERS:
        try:
            read(folder)
        except UserError as error:
            if "\n" in str(error) or str(folder) not in str(error):
                yield f"{error}"
        except Exception as error:
            yield f"{type(error).__name__}: {error}"


def test_the_folder_as_it_is_has_no_problem(folder: Path) -> None:
    assert not list(problems(folder)) and load_model(folder, head=Head.MASKED_LM)


@pytest.mark.parametrize("name", FILES)
def test_other_content_is_refused_in_a_line(folder: Path, tmp_path: Path, name: str) -> None:
    wrong = []
    for content in CONTENTS:
        copy = shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True)
        if name == FILES[-1]:
            (copy / "model.safetensors").unlink()
        (copy / name).write_bytes(content)
        wrong += [f"{content[:50]!r}: {each}" for each in problems(copy)]
        shutil.rmtree(copy)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_other_values_are_refused_in_a_line_or_read(folder: Path, tmp_path: Path, name: str) -> None:
    copy, draw, wrong = shutil.copytree(folder, tmp_path / "copy"), random.Random(0), []
    whole = json.loads((folder / name).read_text())
    for _ in range(15):
        changed = {**whole, draw.choice(list(whole)): draw.choice(VALUES)}
        (copy / name).write_text(json.dumps(changed))
        wrong += [f"{changed}: {each}" for each in problems(copy)]
    assert not wrong, "\n".join(wrong)
