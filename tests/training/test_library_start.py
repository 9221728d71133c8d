"""Finetuning from Hugging Face folders whose architecture is no family: counts, FLOPs, weights, compression."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig

from labelled_tables import finetuning, table_of, word_tokenizer
from trainlarge.cli import main
from trainlarge.config.plain import from_plain, to_plain
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.errors import UserError
from trainlarge.models.counts import parameter_counts
from trainlarge.models.flops import forward_flops
from trainlarge.models.library import LIBRARY, frozen_config, library_arch
from trainlarge.models.shape import Shape, head_of, shape_of
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tasks.step import step_of
from trainlarge.training.cells import STAGE
from trainlarge.training.context import TrainContext

Compose = Callable[..., StageConfig]
Run = Callable[[str, Sequence[StageConfig]], list[CellFolder]]
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
ROWS = {"initializer_range": 0.3, "vocab_size": 300, "max_position_embeddings": 40, "pad_token_id": 2}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "electra": ("MaskedLM", {**SIZES, "embedding_size": 8}),
    "distilbert": ("MaskedLM", {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2}),
    "roberta": ("MaskedLM", {**SIZES, "type_vocab_size": 1}),
    "albert": ("MaskedLM", {**SIZES, "embedding_size": 8}),
    "deberta-v2": ("MaskedLM", {**SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "gpt2": ("CausalLM", {"n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 1}),
    "qwen2": ("CausalLM", {**SIZES, "num_key_value_heads": 1}),
}
"""Architecture -> the head that it was pretrained with, and a small configuration."""
TRAINED = ["electra", "distilbert", "roberta"]


def folder_of(path: Path, model_type: str) -> Path:
    """A small model of an architecture with new weights, and a tokenizer of whole words."""
    word_tokenizer(path, ["the", "a", "model", "was", "small", "large", "good", "bad"])
    head, sizes = SMALL[model_type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **{**ROWS, **sizes})
        getattr(transformers, f"AutoModelFor{head}").from_config(config).save_pretrained(path)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return table_of(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("model_type", TRAINED)
def test_a_folder_is_finetuned_again_and_compressed(
    compose: Compose, run_here: Run, table: Path, tmp_path: Path, model_type: str
) -> None:
    start = folder_of(tmp_path / model_type, model_type)
    [child] = run_here("train", [compose("train", *finetuning(start, table, "budget=160 steps"))])
    config, record = child.cell().as_train, child.train_record()
    assert (config.arch.name, config.arch.width, config.arch.depth, config.arch.heads) == ("library", 16, 2, 2)
    assert config.arch.ffn_ratio == 2 and config.data.vocab_size == 300
    assert record.scores["accuracy"] == 1.0, "the label is one of the words"
    model = AutoModelForSequenceClassification.from_pretrained(child.checkpoint)
    assert type(model).__name__.lower() == f"{model_type}forsequenceclassification"
    assert record.parameters == model.num_parameters() and record.flops == 160 * step_of(config).flops
    recipe = ("prune.sparsity=0.5", "quantize.bits=4", "study=tiny", "tracking=none")
    [compressed] = run_here("compress", [compose("compress", f"checkpoint={child.id}", *recipe)])
    assert compressed.compress_record().dense_loss == pytest.approx(record.scores["loss"], abs=1e-5)
    [again] = run_here("train", [compose("train", *finetuning(child.id, table, "budget=2 steps"))])
    assert again.train_record().scores["accuracy"] == 1.0, "a start from what started from the folder"


@pytest.mark.parametrize("model_type", SMALL)
def test_counts_and_flops_are_those_of_the_model_and_weights_those_of_the_folder(
    compose: Compose, study: Study, table: Path, tmp_path: Path, model_type: str
) -> None:
    start = folder_of(tmp_path / model_type, model_type)
    config = STAGE.resolve(compose("train", *finetuning(start, table)))
    assert STAGE.resolve(config) == config and from_plain(TrainConfig, to_plain(config)) == config
    shape, head = shape_of(config), head_of(config)
    model = TrainContext(study, config).loop.module.model
    counts = parameter_counts(shape, head)
    assert counts.total == sum(parameter.numel() for parameter in model.parameters())
    assert counts.token_embedding == model.get_input_embeddings().weight.numel()
    trained, tensors = load_file(start / "model.safetensors"), model.state_dict()
    body = [name for name in tensors if name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name]
    assert body and all(torch.equal(tensors[name], trained[name]) for name in body if name in trained)
    model.train(False)
    for length in (8, 16):
        ids = torch.full((1, length), 5)
        with FlopCounterMode(display=False) as counter:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        assert forward_flops(shape, length, 1, head) == counter.get_total_flops()


def test_what_is_measured_of_an_architecture_that_is_a_family_is_what_its_formulas_say() -> None:
    config = AutoConfig.for_model("bert", **{**ROWS, **SIZES})
    text = frozen_config(json.loads(config.to_json_string()))
    arch, vocabulary = library_arch(text)
    measured = Shape.from_config(arch, vocabulary, labels=3, config=text)
    head = next(iter(LIBRARY.heads))
    family = Shape.from_config(replace(arch, name="bert"), vocabulary, labels=3)
    of_both = [parameter_counts(shape, head) for shape in (measured, family)]
    assert of_both[0].total == of_both[1].total and of_both[0].embedding == of_both[1].embedding
    for length in (4, 17, 40):
        assert forward_flops(measured, length, 1, head) == forward_flops(family, length, 1, head)


def test_a_family_whose_sizes_are_not_those_of_the_formulas_is_taken_by_its_configuration(
    compose: Compose, study: Study, table: Path, tmp_path: Path
) -> None:
    start = folder_of(tmp_path / "qwen2", "qwen2")
    config = AutoConfig.for_model("llama", **{**ROWS, **SIZES, "num_key_value_heads": 1})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(start)
    resolved = STAGE.resolve(compose("train", *finetuning(start, table)))
    assert resolved.arch.name == "library" and resolved.checkpoint_config
    model = TrainContext(study, resolved).loop.module.model
    assert type(model).__name__ == "LlamaForSequenceClassification" and model.config.num_key_value_heads == 1


def test_plan_shows_the_counts_and_refuses_what_cannot_start(
    table: Path, tmp_path: Path, study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    start = folder_of(tmp_path / "electra", "electra")

    def plan(*more: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main(["plan", "train", *finetuning(start, table, "impl.device=cpu", *more), "--json"])
        return status, *capfd.readouterr()

    status, printed, _ = plan()
    [job] = json.loads(printed)["jobs"]
    model = AutoModelForSequenceClassification.from_pretrained(start, num_labels=2)
    assert status == 0 and job["parameters"] == model.num_parameters() and not study.path.exists()
    for override, message in (
        (
            "task=mlm",
            f"checkpoint={start} is not valid: must be the Hugging Face folder of a model of an architecture that",
        ),
        ("optim.lr_rule=mup", "optim.lr_rule=mup is not valid: must be another rule for a folder whose architecture"),
        ("data.sequence_length=48", "data.sequence_length=48 is not valid: must be 1 to 40, the positions"),
        ("arch.width=32", "arch.width=32 is not valid: must be 16, that of the checkpoint"),
    ):
        status, _, error = plan(override)
        assert status == 2 and message in error and error.count("\n") == 1, error


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "nothing"}, r"a model that the library of models can describe \(.*nothing.*\)$"),
        ({"model_type": "vit"}, r"must be a model that labels rows .*; vit has no such head$"),
        ({"hidden_size": None}, r"a model that the library of models can describe \(.*\)$"),
        (
            {"num_hidden_layers": 10**6},
            r"a model that the library of models can describe \(num_hidden_layers 1000000: ",
        ),
    ],
    ids=str,
)
def test_a_folder_that_cannot_label_rows_is_refused_in_one_line(
    compose: Compose, table: Path, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    start = folder_of(tmp_path / "electra", "electra")
    written = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps({**written, **changed}))
    with pytest.raises(UserError, match=rf"^checkpoint=.*{message}") as error:
        STAGE.resolve(compose("train", *finetuning(start, table)))
    assert "\n" not in str(error.value)


def test_a_configuration_says_what_it_says_under_any_name() -> None:
    config: PretrainedConfig = AutoConfig.for_model("gpt2", n_embd=32, n_layer=3, n_head=4, n_positions=64)
    arch, _ = library_arch(frozen_config(json.loads(config.to_json_string())))
    assert (arch.width, arch.depth, arch.heads, arch.ffn_ratio, arch.positions, arch.dropout) == (32, 3, 4, 4, 64, 0.1)
    longest, _ = library_arch(frozen_config({"model_type": "roberta", **ROWS, **SIZES}))
    assert longest.positions == 37, "those after the id of the padding"
