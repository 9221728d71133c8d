"""Small texts and prepared data that the tests of this folder share."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from groups import data_group
from trainlarge.config.data import DataConfig
from trainlarge.data.prepare import PreparedData, prepare

WORDS = ["the", "of", "model", "layer", "width", "depth", "budget", "naïve", "模型", "x=1", "a_b", "don't", "\t", ""]


def prose(paragraphs: int, seed: int = 0) -> str:
    """Paragraphs of 80 random words each, with a blank line between them."""
    draw = random.Random(seed)
    return "\n\n".join(" ".join(draw.choices(WORDS, k=80)) for _ in range(paragraphs))


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text of some 200 kB, enough for documents in both splits."""
    path = tmp_path_factory.mktemp("text") / "prose.txt"
    path.write_text(prose(400), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def data(text_file: Path) -> DataConfig:
    """A cell's data group on the small text."""
    return data_group({"name": "text", "files": [str(text_file)], "validation_share": 0.2, "vocab_size": 300})


@pytest.fixture(scope="session")
def prepared(data: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The small text, prepared."""
    return prepare(data, tmp_path_factory.mktemp("root"))
