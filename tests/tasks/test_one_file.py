"""A task is one file: nothing else in ``src/`` knows that tokens are hidden behind masks and predicted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import trainlarge

SRC = Path(trainlarge.__file__).parent
WORDS = re.compile(
    r"mask_rate|masked_(?!fill|select)|\bmasked\b|(?<!For)MaskedLM|\[MASK\]|MASK_ID|mask_id|mask token", re.IGNORECASE
)
"""Words of masked language modelling. Attention masks and masks of pruned weights are other things."""
TASK = {
    "config/task.py": "what must be known of each task before anything is computed",
    "tasks/masked_lm.py": "the task",
}
KINDS_OF_MODEL = {
    "models/family.py": "the head that transformers calls ForMaskedLM",
    "models/build.py": "how transformers loads that head, and what errors call it",
    "models/families/bert.py": "its parameters in BERT",
    "models/families/modernbert.py": "its parameters in ModernBERT",
    "models/families/roberta.py": "its parameters in RoBERTa",
}
SPECIAL_TOKENS = {
    "data/tokenizer.py": "every tokenizer that is made has the special token",
    "data/prepare.py": "prepared data name the special tokens of their tokenizer",
    "data/model_tokenizer.py": "as do those of a checkpoint's tokenizer",
    "config/data.py": "the smallest vocabulary is the bytes and the special tokens",
}
WORDS_IN_FILES = {
    "tasks/step.py": "the JSON key of predictions per row in files of step times",
    "config/structure.py": "a mask of units is meant",
}
ALLOWED = TASK | KINDS_OF_MODEL | SPECIAL_TOKENS | WORDS_IN_FILES
FILES = sorted(path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py"))


def lines(file: str) -> list[str]:
    text = (SRC / file).read_text(encoding="utf-8")
    return [f"{file}:{number}: {line}" for number, line in enumerate(text.splitlines(), 1) if WORDS.search(line)]


def test_only_the_task_knows_masks() -> None:
    assert [line for file in FILES if file not in ALLOWED for line in lines(file)] == []


@pytest.mark.parametrize("file", ALLOWED)
def test_files_that_may_know_them_are_there_and_do(file: str) -> None:
    assert lines(file)


def test_training_and_models_have_no_word_of_positions_to_predict() -> None:
    """The forward pass takes an index of the tokens at which predictions are made, which the task gives."""
    texts = {
        file: (SRC / file).read_text(encoding="utf-8") for file in FILES if file.startswith(("models/", "training/"))
    }
    assert [file for file, text in texts.items() if re.search(r"predicted positions|positions to predict", text)] == []
