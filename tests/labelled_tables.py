"""Tables of labelled rows, models that read them, and command lines that finetune."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast


def table_of(path: Path, labels: Sequence[str] = ("bad", "good"), rows: int = 600) -> Path:
    """Labelled rows of the words of the tiny text, whose label is in one of them."""
    draw = random.Random(0)
    lines = []
    for _ in range(rows):
        label = draw.choice(labels)
        words = draw.choices(["the", "a", "model", "was", "small", "large"], k=draw.randint(2, 8))
        lines.append(json.dumps({"text": " ".join([*words, label]), "label": label}))
    path.write_text("\n".join(lines))
    return path


def finetuning(checkpoint: str | Path, table: Path, *more: str) -> list[str]:
    """Overrides of a finetuning; the shape and the vocabulary are those of the checkpoint."""
    common = ["study=tiny", "tracking=none", "task=classification", "task.evaluation_rows=64", "data=text"]
    data = [f"data.files=[{table}]", "data.sequence_length=16", "optim.batch=256", "schedule.warmup_steps=4"]
    return [*common, *data, f"checkpoint={checkpoint}", "optim.lr=1e-2", "budget=10 steps", *more]


def word_tokenizer(folder: Path, words: Sequence[str]) -> None:
    """Save a tokenizer of whole words, with the ids of its special tokens elsewhere than ours has them."""
    special = ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"]
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate([*special, *words])}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    names = {f"{token.strip('[]').lower()}_token": token for token in special}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
