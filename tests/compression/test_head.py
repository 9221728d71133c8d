"""The prediction head inside or outside of what recipes compress: bit by bit, and in every count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)

from trainlarge.compression import (
    GPTQ,
    Compressed,
    Dynamic,
    FixedRank,
    Frequent,
    Heads,
    KMeans,
    Layers,
    LowRank,
    Magnitude,
    Mixed,
    Neurons,
    Outliers,
    Random,
    Recipe,
    Retrain,
    SparseGPT,
    Static,
    Ternary,
    TokenFacts,
    TrainingData,
    Uniform,
    Wanda,
    Weights,
    compress,
    compress_grid,
    load_packed,
    load_packed_weights,
    save_packed,
)
from trainlarge.compression.cells import recovery_id
from trainlarge.compression.model_tensors import entries_of
from trainlarge.compression.stored.dense import Dense
from trainlarge.errors import UserError
from trainlarge.models.build import build_model
from trainlarge.models.counts import parameter_counts
from trainlarge.models.families import FAMILIES
from trainlarge.models.family import Head
from trainlarge.models.head_names import HeadNames, find_head
from trainlarge.models.shape import Shape

IDS = torch.arange(3, 35).view(4, 8)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": torch.tensor([0, 1, 2, 0])}
SMALL = {"vocab_size": 60, "max_position_embeddings": 32}


def family(name: str, head: Head = Head.SEQUENCE_LABEL) -> PreTrainedModel:
    return build_model(shape(name), init_std=0.2, seed=0, attention="sdpa", head=head).eval()


def shape(name: str) -> Shape:
    return Shape(name, width=16, depth=2, heads=2, ffn_ratio=1.5, vocab_size=60, positions=32, labels=3)


def bert() -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertForSequenceClassification(BertConfig(**SMALL, **sizes, num_labels=3)).eval()


def distilbert() -> PreTrainedModel:
    torch.manual_seed(0)
    config = DistilBertConfig(**SMALL, dim=16, n_layers=2, n_heads=2, hidden_dim=24, num_labels=3)
    return DistilBertForSequenceClassification(config).eval()


MODELS = {**{name: lambda name=name: family(name) for name in FAMILIES}, "bert": bert, "distilbert": distilbert}
HEADS = {
    "modern": {"head.dense.weight", "head.norm.weight", "classifier.weight", "classifier.bias"},
    "roberta": {f"classifier.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")},
    "llama": {"score.weight"},
    "bert": {f"{part}.{kind}" for part in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")},
    "distilbert": {f"{part}.{kind}" for part in ("pre_classifier", "classifier") for kind in ("weight", "bias")},
}
METHODS = [
    {"prune": Magnitude(0.6)},
    {"prune": Magnitude(0.6, "row", embeddings=False)},
    {"prune": Random(0.6)},
    {"prune": Wanda(0.5)},
    {"prune": SparseGPT(0.5)},
    {"quantize": Uniform(3)},
    {"quantize": GPTQ(4)},
    {"quantize": KMeans(2)},
    {"quantize": Ternary("row")},
    {"quantize": Outliers(3, share=0.05)},
    {"quantize": Mixed(3.5)},
    {"factorize": LowRank(0.4)},
    {"factorize": FixedRank(1), "prune": Magnitude(0.3), "quantize": Uniform(8)},
    {"activations": Dynamic(4)},
    {"quantize": Uniform(8, embeddings=False), "activations": Static(8)},
    {"vocabulary": Frequent(40), "structure": Heads(0.5), "prune": Magnitude(0.5), "quantize": Uniform(4)},
    {"structure": Layers(0.5), "quantize": Uniform(4), "order": ("quantize", "structure")},
    {"structure": Neurons(0.5), "factorize": LowRank(0.5), "prune": Magnitude(0.3, "tensor")},
]
NAMES = [*MODELS]
"""Each method meets two of the models, and each model several of the methods."""
OUTSIDE = [(NAMES[place % len(NAMES)], methods) for place, methods in enumerate(METHODS)]
INSIDE = [(NAMES[(place + 2) % len(NAMES)], methods) for place, methods in enumerate(METHODS)]
by_model = pytest.mark.parametrize("name", MODELS)


def _id(value: str | dict) -> str:
    return value if isinstance(value, str) else Recipe(**value).describe()


def compressed(model: nn.Module, recipe: Recipe) -> Compressed:
    tokens = TokenFacts(torch.arange(60), frozenset({0, 1}), 1)
    return compress(model, recipe, calibration=[BATCH], tokens=tokens, training=TrainingData(lambda step: BATCH))


@by_model
def test_the_head_is_classifier_dense_layer_and_pooler(name: str) -> None:
    model = MODELS[name]()
    head = find_head(model)
    assert head is not None
    assert {entry for entry in entries_of(model) if head.holds(entry)} == HEADS[name]


@pytest.mark.parametrize("head", Head)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_of_a_family_has_the_parameters_of_the_formula(name: str, head: Head) -> None:
    if head not in FAMILIES[name].heads:
        pytest.skip(f"{name} has no {head}")
    weights, counts = Weights.of(family(name, head)), parameter_counts(shape(name), head)
    assert weights.head is not None
    held = [tensor.numel() for entry, tensor in weights.tensors.items() if weights.head.holds(entry)]
    assert sum(held) == counts.head + counts.untied_output + counts.unused_bias


@pytest.mark.parametrize(("name", "methods"), OUTSIDE, ids=_id)
def test_no_bit_of_a_head_outside_changes(name: str, methods: dict, tmp_path: Path) -> None:
    before = Weights.of(MODELS[name]()).tensors
    result = compressed(MODELS[name](), Recipe(**methods, compress_head=False))
    for entry in HEADS[name]:
        assert torch.equal(result.weights[entry], before[entry])
        assert isinstance(result.packed.stored[entry], Dense)
    assert not set(result.packed.ranges) & {entry.rpartition(".")[0] for entry in HEADS[name]}
    save_packed(tmp_path / "packed", result)
    assert (tmp_path / "packed").stat().st_size == result.sizes.file_bytes
    assert all(torch.equal(load_packed_weights(tmp_path / "packed")[entry], before[entry]) for entry in HEADS[name])
    with torch.no_grad():
        inputs = IDS % 40 if result.left.structure.tokens else IDS
        assert torch.equal(load_packed(tmp_path / "packed")(inputs).logits, result.model()(inputs).logits)


@pytest.mark.parametrize(("name", "methods"), INSIDE, ids=_id)
def test_a_head_inside_is_compressed_and_counted(name: str, methods: dict) -> None:
    inside, outside = (compressed(MODELS[name](), Recipe(**methods, compress_head=each)) for each in (True, False))
    matrices = [entry for entry in HEADS[name] if entry in Weights.of(MODELS[name]()).matrices]
    if set(methods) & {"prune", "quantize", "factorize"}:
        assert any(_changed(inside, outside, entry) for entry in matrices)
    if not _ranks_all_together(methods):
        assert _embedding_bytes(inside) == _embedding_bytes(outside)
    if "activations" in methods:
        head = HeadNames(MODELS[name]().base_model_prefix)
        assert {layer for layer in inside.packed.ranges if not head.holds(layer)} == set(outside.packed.ranges)
        assert any(map(head.holds, inside.packed.ranges))


@by_model
def test_the_sizes_differ_by_what_the_head_takes(name: str) -> None:
    """Of a method that looks at one matrix at a time; the rest of the model is the same to the bit."""
    recipe = {"prune": Magnitude(0.5, "tensor"), "quantize": Uniform(8)}
    inside, outside = (compressed(MODELS[name](), Recipe(**recipe, compress_head=each)) for each in (True, False))
    head = [entry for entry in HEADS[name] if entry in inside.left.matrices]
    zeros = sum(round(0.5 * inside.weights[entry].numel()) for entry in head)
    assert outside.sizes.nonzero_parameters - inside.sizes.nonzero_parameters == zeros
    bits = sum(32 * inside.weights[entry].numel() for entry in head) - 8 * (
        sum(inside.weights[entry].numel() for entry in head) - zeros
    )
    assert abs(outside.sizes.ideal_bytes - inside.sizes.ideal_bytes - bits / 8) < 1
    for entry, tensor in outside.weights.items():
        assert torch.equal(tensor, inside.weights[entry]) == (entry not in head)


def test_recovery_trains_a_head_outside_and_holds_no_zero_of_it() -> None:
    model = family("modern")
    with torch.no_grad():
        model.get_submodule("classifier").weight[0, :4] = 0
    recipe = Recipe(prune=Magnitude(0.5), recover=Retrain("3 steps", lr=1e-2), quantize=Uniform(4), compress_head=False)
    result = compressed(model, recipe)
    head, before = result.weights["classifier.weight"], model.state_dict()["classifier.weight"]
    assert not torch.equal(head, before) and int((head == 0).sum()) == 0
    assert isinstance(result.packed.stored["classifier.weight"], Dense)
    pruned = result.weights["model.layers.0.mlp.Wi.weight"]
    assert int((pruned == 0).sum()) > 0.2 * pruned.numel()


def test_recipes_of_both_kinds_in_one_grid_are_as_computed_alone() -> None:
    model = family("roberta")
    grid = [Recipe(Magnitude(share), Uniform(4), compress_head=each) for share in (0.3, 0.6) for each in (True, False)]
    results = dict(compress_grid(Weights.of(model), grid))
    assert sorted(results) == [0, 1, 2, 3]
    for position, recipe in enumerate(grid):
        alone = compress(model, recipe)
        assert alone.sizes == results[position].sizes
        assert all(torch.equal(tensor, alone.weights[entry]) for entry, tensor in results[position].weights.items())


def test_a_tied_output_is_an_embedding_and_stays_one() -> None:
    model = family("modern", Head.MASKED_LM)
    result = compress(model, Recipe(quantize=Uniform(2), activations=Dynamic(8), compress_head=False))
    table = "model.embeddings.tok_embeddings.weight"
    assert not torch.equal(result.weights[table], model.state_dict()[table])
    assert torch.equal(result.weights["head.dense.weight"], model.state_dict()["head.dense.weight"])
    assert "decoder" not in result.packed.ranges and "model.layers.0.mlp.Wi" in result.packed.ranges


def test_what_has_no_known_head_is_refused_and_the_others_go_on() -> None:
    plain = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(UserError, match="compress_head=false is not valid: must be true for Sequential"):
        compress(plain, Recipe(quantize=Uniform(8), compress_head=False))
    refused: dict[int, UserError] = {}
    grid = [Recipe(quantize=Uniform(8), compress_head=False), Recipe(quantize=Uniform(8))]
    done = [position for position, _ in compress_grid(Weights.of(plain), grid, refused=refused.__setitem__)]
    assert done == [1] and list(refused) == [0]
    with pytest.raises(UserError, match="matrices other than its embeddings and head"):
        compress(_only_a_head(), Recipe(quantize=Uniform(8, embeddings=False), compress_head=False))


def test_recovery_has_states_of_its_own() -> None:
    steps = (Magnitude(0.5), Retrain("5 steps"))
    assert recovery_id("a", steps, compress_head=True) == "57b48e6bec0a"
    assert recovery_id("a", steps, compress_head=False) != recovery_id("a", steps, compress_head=True)


def _only_a_head() -> PreTrainedModel:
    model = bert()
    model.bert.encoder = nn.Identity()
    return model


def _changed(first: Compressed, second: Compressed, entry: str) -> bool:
    return entry not in first.weights or not torch.equal(first.weights[entry], second.weights[entry])


def _embedding_bytes(result: Compressed) -> int:
    return result.sizes.file_bytes - result.sizes.file_bytes_without_embeddings


def _ranks_all_together(methods: dict) -> bool:
    """Whether what happens to an embedding depends on the matrices beside it."""
    prune = methods.get("prune")
    return (isinstance(prune, Magnitude) and prune.scope == "global") or isinstance(methods.get("quantize"), Mixed)
