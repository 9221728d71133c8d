"""What a user can get wrong: one line with key, value and what is allowed, and nothing of the rest is lost."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from trainlarge.cli import main
from trainlarge.compression import (
    Frequent,
    Heads,
    LayerList,
    Layers,
    Magnitude,
    Neurons,
    Random,
    Recipe,
    SparseGPT,
    TokenFacts,
    Uniform,
    Wanda,
    Weights,
    compress,
    compress_grid,
    load_packed,
    save_packed,
)
from trainlarge.config.identity import field_names
from trainlarge.config.method import METHODS
from trainlarge.errors import UserError
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study

Run = Callable[[str, list[dict[str, Any]]], list[CellFolder]]
Compose = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("name", [name for name, kind in METHODS["prune"].items() if "sparsity" in field_names(kind)])
@pytest.mark.parametrize("sparsity", [1, 1.0, 1.5, -0.1, "nan", "much", None])
def test_sparsity_out_of_range(name: str, sparsity: object) -> None:
    allowed = "a finite number" if sparsity == "nan" else "a number in [0, 1)"
    _refused(lambda: Recipe.from_config({"name": name, "sparsity": sparsity}), "prune.sparsity=", allowed)


@pytest.mark.parametrize(
    ("name", "bits", "allowed"),
    [
        *[
            (name, bits, "from 2 to 8")
            for name in ("uniform", "outliers", "gptq", "mixed")
            for bits in (0, 1, 9, 16, -4)
        ],
        *[(name, 4.5, "a whole number") for name in ("uniform", "outliers", "gptq", "kmeans")],
        *[("kmeans", bits, "from 1 to 8") for bits in (0, 9, 16)],
        *[(name, 2, f"a field of {name}") for name in ("ternary", "binary")],
    ],
)
def test_bits_that_a_method_does_not_have(name: str, bits: object, allowed: str) -> None:
    _refused(
        lambda: Recipe.from_config(None, {"name": name, "bits": bits}),
        f"quantize.bits={bits} is not valid: ",
        allowed,
    )


@pytest.mark.parametrize("layers", [(0, 2), (7,)])
def test_a_layer_that_is_not_there(model: PreTrainedModel, layers: tuple[int, ...]) -> None:
    recipe = Recipe(structure=LayerList(layers))
    _refused(lambda: compress(model, recipe), f"structure.layers={list(layers)} is not valid: ", "numbers from 0 to 1")


@pytest.mark.parametrize(
    "method",
    [
        Magnitude(0.999999),
        Magnitude(0.99, "row"),
        Magnitude(0.9999, "tensor"),
        Random(0.9999),
        Wanda(0.99),
        SparseGPT(0.9999),
    ],
    ids=lambda method: method.describe(),
)
def test_pruning_that_leaves_nothing(modern: PreTrainedModel, method: Any) -> None:
    batches = [torch.randint(3, 120, (2, 8))]
    recipe = Recipe(prune=method, quantize=Uniform(4))
    start = f"prune.sparsity={method.sparsity} is not valid: "
    _refused(lambda: compress(modern, recipe, calibration=batches), start, "a share that leaves weights")


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: LayerList(()), "structure.layers=[]"),
        (lambda: Layers(0.0), "structure.keep=0.0"),
        (lambda: Heads(0.0), "structure.keep=0.0"),
        (lambda: Neurons(-1), "structure.keep=-1"),
        (lambda: Frequent(0), "vocabulary.size=0"),
    ],
)
def test_structure_that_leaves_nothing(make: Callable[[], object], key: str) -> None:
    _refused(make, f"{key} is not valid: ", "")


def test_the_least_that_a_structure_keeps_is_one(modern: PreTrainedModel) -> None:
    left = compress(modern, Recipe(structure=Heads(0.01))).left.structure
    assert [len(heads) for heads in left.heads] == [1, 1]


@pytest.mark.parametrize("part", [Heads(0.5), Neurons(0.5), Layers(0.5), LayerList((0,))], ids=lambda part: part.name)
def test_a_model_without_the_named_modules(plainest: nn.Module, part: Any) -> None:
    _refused(
        lambda: compress(plainest, Recipe(structure=part)),
        f"structure.name={part.name}=Plainest is not valid: ",
        "for a model",
    )


def test_a_model_without_a_vocabulary(plainest: nn.Module) -> None:
    facts = TokenFacts(torch.arange(13), special=frozenset(), unknown=0)
    recipe = Recipe(vocabulary=Frequent(3))
    _refused(
        lambda: compress(plainest, recipe, tokens=facts),
        "vocabulary.name=frequent=Plainest is not valid: ",
        "for a Hugging",
    )


def test_a_model_without_matrices(plainest: nn.Module) -> None:
    vectors = nn.BatchNorm1d(3)
    _refused(
        lambda: compress(vectors, Recipe(Magnitude(0.5))),
        "prune.name=magnitude=BatchNorm1d is not valid: ",
        "with matrices",
    )
    table = nn.Embedding(5, 3)
    body = Recipe(quantize=Uniform(4, embeddings=False))
    _refused(
        lambda: compress(table, body),
        "quantize.name=uniform=Embedding is not valid: ",
        "matrices other than its embeddings",
    )


def test_a_file_with_tied_weights_in_a_model_without(roberta: PreTrainedModel, tmp_path: Path) -> None:
    save_packed(tmp_path / "packed", compress(roberta, Recipe(quantize=Uniform(4))))
    config = copy.deepcopy(roberta.config)
    config.tie_word_embeddings = False
    untied = type(roberta)(config)
    before = Weights.of(untied).tensors
    _refused(lambda: load_packed(tmp_path / "packed", untied), "packed=", "as in this model")
    assert all(torch.equal(tensor, before[name]) for name, tensor in Weights.of(untied).tensors.items())
    save_packed(tmp_path / "packed", compress(untied, Recipe(quantize=Uniform(4))))
    _refused(lambda: load_packed(tmp_path / "packed", roberta), "packed=", "no such tensor in this model")


def test_tied_weights_are_compressed_once_and_stay_tied(model: PreTrainedModel) -> None:
    compressed = compress(model, Recipe(Magnitude(0.5), Uniform(4)), inplace=True)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert compressed.sizes.parameters == model.num_parameters()


def test_a_recipe_that_does_not_fit_takes_no_other_with_it(model: PreTrainedModel) -> None:
    good, bad = Recipe(Magnitude(0.5)), Recipe(structure=LayerList((0, 5)))
    also = Recipe(structure=LayerList((0, 5)), quantize=Uniform(4))
    refused: dict[int, str] = {}
    grid = compress_grid(
        Weights.of(model), [good, bad, also, Recipe()], refused=lambda at, why: refused.update({at: str(why)})
    )
    assert {position for position, _ in grid} == {0, 3}
    assert set(refused) == {1, 2} and refused[1].startswith(
        "structure.layers=[0, 5] is not valid: must be numbers from 0 to 1"
    )
    with pytest.raises(UserError, match=r"^structure.layers"):
        list(compress_grid(Weights.of(model), [good, bad]))


def test_a_bad_recipe_of_a_sweep_fails_alone(run_here: Run, tiny: Compose, compose: Compose, study: Study) -> None:
    [parent] = run_here("train", [tiny("arch.depth=2")])
    common = [f"checkpoint={parent.id}", "study=tiny", "tracking=none", "structure=layer_list"]
    sweep = [(layers, sparsity) for layers in ("[0]", "[0,5]", "[1]") for sparsity in (0, 0.9999999)]
    run_here(
        "compress", [compose("compress", *common, f"structure.layers={a}", f"prune.sparsity={b}") for a, b in sweep]
    )
    errors = {folder.id: folder.status().error for folder in study.folders("compress")}
    assert sorted(filter(None, errors.values())) == sorted(
        ["prune.sparsity=0.9999999 is not valid: must be a share that leaves weights in the matrices of this model"] * 2
        + ["structure.layers=[0, 5] is not valid: must be numbers from 0 to 1, the layers there are"] * 2
    )
    for folder in study.folders("compress"):
        assert folder.is_done() == (errors[folder.id] is None) == folder.packed.is_file()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["prune.sparsity=1"], "prune.sparsity=1 is not valid: must be a number in [0, 1)"),
        (
            ["quantize.bits=9"],
            "quantize.bits=9 is not valid: must be a whole number from 2 to 8, or 32 in a configuration",
        ),
        (
            ["activations=dynamic", "activations.bits=9"],
            "activations.bits=9 is not valid: must be a whole number from 2 to 8",
        ),
        (["structure=layer_list", "structure.layers=[]"], "structure.layers=[] is not valid: must be a rising list"),
        (["structure=layers", "structure.keep=0"], "structure.keep=0 is not valid: must be a number in (0, 1]"),
    ],
)
def test_the_command_line_says_it_in_one_line(
    run_here: Run, tiny: Compose, capfd: pytest.CaptureFixture[str], overrides: list[str], line: str
) -> None:
    [parent] = run_here("train", [tiny("budget=1 steps")])
    capfd.readouterr()
    assert main(["compress", f"checkpoint={parent.id}", "study=tiny", "tracking=none", *overrides]) == 2
    told = capfd.readouterr().err.strip()
    assert line in told and "\n" not in told


def test_a_checkpoint_with_nan(
    run_here: Run, tiny: Compose, compose: Compose, study: Study, tmp_path: Path, tiny_text: Path
) -> None:
    [parent] = run_here("train", [tiny("budget=1 steps")])
    # A folder of its own: what a train cell wrote is compared with its digests before it is read.
    folder = shutil.copytree(parent.checkpoint, tmp_path / "nan")
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["decoder.bias"][3] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    text = ["data=text", f"data.files=[{tiny_text}]", "data.sequence_length=16", "task.evaluation_rows=32"]
    with pytest.raises(UserError, match=r"^weights.decoder.bias=NaN"):
        run_here("compress", [compose("compress", f"checkpoint={folder}", *text, "study=tiny", "tracking=none")])
    [cell] = study.folders("compress")
    assert cell.status().state is State.FAILED
    assert cell.status().error == "weights.decoder.bias=NaN or infinite values is not valid: must be finite numbers"


def _refused(make: Callable[[], object], start: str, allowed: str) -> None:
    with pytest.raises(UserError) as error:
        make()
    text = str(error.value)
    assert text.startswith(start) and allowed in text.partition(" is not valid: ")[2] and "\n" not in text, text
