"""Any Hugging Face folder as a checkpoint: evaluated on a text with its own tokenizer; identity by content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from trainlarge.cli import main
from trainlarge.compression import load_packed
from trainlarge.compression.cells import resolve
from trainlarge.errors import UserError
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.store import Study

Compose = Callable[..., dict[str, Any]]
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<cls>", "sep_token": "<sep>", "mask_token": "<m>"}


@pytest.fixture
def folder(tmp_path: Path, tiny_text: Path) -> Path:
    """A small BERT with a tokenizer of whole words, as somebody else made it: it cuts texts after four tokens."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train([str(tiny_text)], trainers.WordLevelTrainer(special_tokens=list(SPECIAL.values())))
    tokenizer.enable_truncation(4)
    path = tmp_path / "bert"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL).save_pretrained(path)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(0)
    size = tokenizer.get_vocab_size()
    BertForMaskedLM(BertConfig(vocab_size=size, max_position_embeddings=32, **shape)).save_pretrained(path)
    return path


@pytest.fixture
def text(tiny_text: Path) -> list[str]:
    """Overrides for the text and the evaluation."""
    return [
        "data=text",
        f"data.files=[{tiny_text}]",
        "data.sequence_length=16",
        "task.evaluation_rows=32",
        "study=tiny",
    ]


def test_a_folder_is_compressed_in_one_command(study: Study, folder: Path, text: list[str]) -> None:
    recipes = ["structure=heads", "structure.keep=0.5", "vocabulary=frequent", "vocabulary.size=20", "tracking=none"]
    assert main(["compress", f"checkpoint={folder}", *text, *recipes, "quantize.bits=8"]) == 0
    [cell] = study.folders("compress")
    record = cell.record()
    assert record["parent"] == cell.cell().config["checkpoint_digest"]
    assert load_packed(cell.packed).num_parameters() == record["parameters"]
    assert record["unknown_share"] > 0
    assert main(["plan", "compress", f"checkpoint={folder}", *text]) == 0


def test_identity_is_content_and_not_place(folder: Path, text: list[str], study: Study, compose: Compose) -> None:
    moved = shutil.copytree(folder, folder.with_name("moved"))
    one, other = (
        Cell("compress", resolve(compose("compress", f"checkpoint={path}", *text))) for path in (folder, moved)
    )
    assert one.id == other.id
    shorter = resolve(compose("compress", f"checkpoint={folder}", *text, "data.sequence_length=8"))
    assert Cell("compress", shorter).id != one.id
    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert Cell("compress", resolve(compose("compress", f"checkpoint={moved}", *text))).id != one.id


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_is_missing_is_named(folder: Path, text: list[str], study: Study, compose: Compose, missing: str) -> None:
    (folder / missing).unlink()
    name = "safetensors" if missing.startswith("model") else missing
    with pytest.raises(UserError, match=rf"^checkpoint=.*{name} missing"):
        resolve(compose("compress", f"checkpoint={folder}", *text))


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["data.sequence_length=33"], "data.sequence_length=33: allowed is 1 to 32"),
        (["task.evaluation_rows=0"], "task.evaluation_rows=0"),
        (["data.files=[/nowhere/x.txt]"], "data.files=/nowhere/x.txt"),
    ],
)
def test_a_text_that_does_not_fit(
    folder: Path, text: list[str], study: Study, compose: Compose, overrides: list[str], key: str
) -> None:
    with pytest.raises(UserError, match=rf"^{key}"):
        resolve(compose("compress", f"checkpoint={folder}", *text, *overrides))


def test_a_tokenizer_without_a_mask(folder: Path) -> None:
    from trainlarge.compression.own_tokenizer import own_tokenizer

    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("mask_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="whose tokenizer has a mask token"):
        own_tokenizer(folder)
