"""Finetuning to label rows on a GPU: what the CPU gives but for rounding, also after a stop."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForMaskedLM

from labelled_tables import finetuning, word_tokenizer
from trainlarge.config.schema import TrainConfig
from trainlarge.sweep.store import CellFolder

pytestmark = pytest.mark.gpu
Compose = Callable[..., TrainConfig]
Run = Callable[[str, list[TrainConfig]], list[CellFolder]]
RunOnce = Callable[..., list[CellFolder]]
RunAndStop = Callable[..., None]
Losses = Callable[[CellFolder], list[float]]
WORDS = ["the", "a", "model", "was", "small", "large"]
PAIR = "task.second_text_column=other"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Pairs of texts of several lengths, with a label and a number."""
    draw, lines = random.Random(0), []
    for _ in range(400):
        label = draw.randint(0, 1)
        texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 5))) for _ in range(2)]
        lines.append(json.dumps({"text": f"{texts[0]} {WORDS[label]}", "other": texts[1], "label": label}))
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def electra(tmp_path: Path) -> Path:
    """A small model of an architecture that is no family, without dropout."""
    folder = tmp_path / "electra"
    word_tokenizer(folder, WORDS)
    sizes = {"hidden_size": 16, "embedding_size": 8, "intermediate_size": 32, "num_hidden_layers": 1}
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
    rows = {"vocab_size": 300, "max_position_embeddings": 40, "pad_token_id": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model("electra", **sizes, **rows, **none)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    return folder


def scratch(table: Path, *more: str) -> list[str]:
    """Overrides of training from initial weights, on either device in fp32."""
    shape = ("arch.width=16", "arch.depth=1", "data.vocab_size=270", "arch.dropout=0", "impl.precision=fp32")
    given = finetuning("x", table, *more, *shape, "budget=40 steps", "optim.lr=3e-3")
    return [text for text in given if not text.startswith("checkpoint=")]


CASES = {
    "modern": (),
    "modern, bucketed": ("task.batches=bucketed",),
    "roberta, pairs, bucketed": ("arch=roberta", PAIR, "task.batches=bucketed"),
    "bert, pairs": ("arch=bert", PAIR),
    "llama, regression": ("arch=llama", "task=regression"),
}


@pytest.mark.parametrize("more", CASES.values(), ids=CASES)
def test_rows_are_labelled_as_on_the_cpu_but_for_rounding(
    compose: Compose, run_once: RunOnce, losses: Losses, table: Path, more: tuple[str, ...]
) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        [folder] = run_once(compose("train", *scratch(table, *more, f"impl.device={device}")))
        assert folder.train_record().environment.device == device
        found[device] = losses(folder)
    assert found["cuda"] == pytest.approx(found["cpu"], rel=1e-3)


@pytest.mark.parametrize("batches", ["padded", "bucketed"])
def test_a_folder_of_any_architecture_is_finetuned_as_on_the_cpu_but_for_rounding(
    compose: Compose, run_once: RunOnce, losses: Losses, table: Path, electra: Path, batches: str
) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        more = (PAIR, f"task.batches={batches}", "impl.precision=fp32", "optim.lr=3e-3", f"impl.device={device}")
        [folder] = run_once(compose("train", *finetuning(electra, table, *more, "budget=40 steps")))
        found[device] = losses(folder)
    assert found["cuda"] == pytest.approx(found["cpu"], rel=1e-3)


def test_a_run_on_rows_of_like_lengths_that_was_stopped_goes_on_to_the_same_losses(
    compose: Compose, run_here: Run, run_once: RunOnce, run_and_stop: RunAndStop, losses: Losses, table: Path
) -> None:
    more = ("task.batches=bucketed", "impl.device=cuda", "impl.save_seconds=0")
    config = compose("train", *scratch(table, *more))
    [expected] = map(losses, run_once(config))
    run_and_stop(17, config)
    [folder] = run_here("train", [config])
    assert folder.train_record().resumed_at
    assert losses(folder) == pytest.approx(expected, rel=1e-4)


def test_a_batch_of_like_lengths_may_be_cut_into_parts(
    compose: Compose, run_once: RunOnce, losses: Losses, table: Path
) -> None:
    found = []
    for rows in (0, 5):
        more = ("task.batches=bucketed", "impl.device=cuda", f"impl.micro_batch_rows={rows}")
        [folder] = run_once(compose("train", *scratch(table, *more)))
        assert folder.train_record().environment.micro_batch_rows == (rows or 16)
        found.append(losses(folder))
    assert found[1] == pytest.approx(found[0], rel=1e-3)
