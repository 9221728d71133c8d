"""Models in half precision: sizes count their own data types, and what is stored is what is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from trainlarge.compression import (
    GPTQ,
    Binary,
    Compressed,
    FixedRank,
    Frequent,
    Heads,
    KMeans,
    Layers,
    LowRank,
    Magnitude,
    MinMax,
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
    load_packed,
    load_packed_weights,
    save_packed,
)  # fmt: skip
from trainlarge.compression.stored.floats import bit_patterns
from trainlarge.compression.stored.packing import packed_header
from trainlarge.errors import UserError

IDS = torch.arange(3, 35).view(4, 8)
BATCH = {"input_ids": IDS, "labels": IDS}
HALVES = [torch.bfloat16, torch.float16]
RECIPES = [
    Recipe(),
    *(Recipe(prune=each) for each in (Magnitude(0.6), Magnitude(0.6, "global"), Random(0.5), Wanda(0.5))),
    Recipe(prune=SparseGPT(0.5)),
    *(Recipe(quantize=each) for each in (Uniform(2, "tensor"), Uniform(4, "group", True), MinMax(4), GPTQ(4))),
    *(Recipe(quantize=each) for each in (KMeans(4, "row"), Outliers(4, share=0.01), Binary("row"), Ternary("row"))),
    *(Recipe(quantize=Mixed(4.0, sensitivity=each)) for each in ("layer", "model")),
    Recipe(quantize=Uniform(8), activations=Static(8)),
    *(Recipe(structure=each) for each in (Heads(0.5, importance="gradient"), Layers(0.5, choice="contribution"))),
    *(Recipe(factorize=each) for each in (LowRank(0.5), FixedRank(4))),
    Recipe(vocabulary=Frequent(40)),
    Recipe(prune=Magnitude(0.5), recover=Retrain(budget="2 steps", lr=1e-3)),
    Recipe(factorize=LowRank(0.5), structure=Neurons(0.5), prune=Magnitude(0.5), quantize=GPTQ(4)),
]


def bert(dtype: torch.dtype) -> BertForMaskedLM:
    """Small, with fixed weights."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertForMaskedLM(BertConfig(vocab_size=60, max_position_embeddings=32, **shape)).to(dtype).eval()


def compressed(model: nn.Module, recipe: Recipe) -> Compressed:
    tokens = TokenFacts(torch.arange(60), frozenset({0, 1}), 1)
    training = TrainingData(lambda step: BATCH)
    return compress(model, recipe, calibration=[BATCH], tokens=tokens, training=training)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("recipe", RECIPES, ids=Recipe.describe)
def test_every_method_keeps_the_data_type(recipe: Recipe, dtype: torch.dtype, tmp_path: Path) -> None:
    half = compressed(bert(dtype), recipe)
    save_packed(tmp_path / "packed", half)
    assert (tmp_path / "packed").stat().st_size == half.sizes.file_bytes
    read = load_packed_weights(tmp_path / "packed")
    for name, tensor in half.weights.items():
        assert tensor.dtype == read[name].dtype == dtype and bool(tensor.isfinite().all())
        assert torch.equal(bit_patterns(tensor), bit_patterns(read[name]))
    logits = load_packed(tmp_path / "packed")(IDS % 40).logits
    assert logits.dtype == dtype and bool(logits.isfinite().all())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_sizes_are_half_of_those_in_full_precision(dtype: torch.dtype) -> None:
    whole, half = compress(bert(torch.float32), Recipe()).sizes, compress(bert(dtype), Recipe()).sizes
    parameters = bert(dtype).num_parameters()
    assert (whole.dense_bytes, half.dense_bytes) == (4 * parameters, 2 * parameters)
    assert whole.dense_bytes_without_embeddings == 2 * half.dense_bytes_without_embeddings
    padding = 16
    assert (whole.ideal_bytes, half.ideal_bytes) == (4 * (parameters - padding), 2 * (parameters - padding))
    header = 6000
    assert half.file_bytes < half.dense_bytes + header < whole.file_bytes


def test_sparsity_of_half_precision_is_that_of_full_precision() -> None:
    whole, half = (
        compress(bert(dtype), Recipe(Magnitude(0.6, "global"))).sizes for dtype in (torch.float32, torch.bfloat16)
    )
    assert half.nonzero_parameters == pytest.approx(whole.nonzero_parameters, abs=2)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_snapshot_in_the_data_types_of_the_checkpoint_is_exact(dtype: torch.dtype) -> None:
    model = bert(dtype)
    own, wide = (
        Weights.of(model),
        Weights.of(model.float(), dtypes=dict.fromkeys(dict(model.named_parameters()), dtype)),
    )
    assert own.dense_bytes == wide.dense_bytes and own.float_bits == wide.float_bits == 16
    for name, tensor in own.tensors.items():
        assert tensor.dtype == wide.tensors[name].dtype and torch.equal(tensor, wide.tensors[name])


class Mixed16(nn.Module):
    """Tied weights in bf16, a matrix in fp32, an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 8, dtype=torch.bfloat16)
        self.out = nn.Linear(8, 40, bias=False, dtype=torch.bfloat16)
        self.out.weight = self.words.weight
        self.full = nn.Linear(8, 8, bias=False)
        self.register_buffer("places", torch.arange(300))


def test_each_tensor_has_its_own_data_type(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = compress(Mixed16(), Recipe(Magnitude(0.5), Uniform(4)))
    save_packed(tmp_path / "packed", found)
    read = load_packed(tmp_path / "packed", Mixed16())
    types = {name: tensor.dtype for name, tensor in found.weights.items()}
    assert types == {"words.weight": torch.bfloat16, "full.weight": torch.float32, "places": torch.int64}
    assert found.sizes.dense_bytes == 2 * 40 * 8 + 4 * 8 * 8, "tied weights once, buffers not at all"
    assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in found.weights.items())


def one_matrix(weights: Tensor) -> nn.Module:
    """A linear layer of these weights."""
    layer = nn.Linear(*reversed(weights.shape), bias=False)
    layer.weight = nn.Parameter(weights, requires_grad=False)
    return layer


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, [40000, -65504, 0, 0]),
        (torch.bfloat16, [39936, -79872, 0, 0]),
        (torch.float32, [40000, -80000, 0, 0]),
    ],
)
def test_a_rounded_value_beyond_the_data_type_is_its_largest(dtype: torch.dtype, expected: list[float]) -> None:
    found = compress(one_matrix(torch.tensor([[6e4, -6e4, 1, 2]], dtype=dtype)), Recipe(quantize=Uniform(2)))
    assert found.weights["weight"].tolist() == [expected]


@pytest.mark.parametrize("make", [Uniform, MinMax, KMeans, lambda bits: Outliers(bits, share=0.3)])
def test_float16_at_the_end_of_its_range_stays_finite(make: Callable[[int], Uniform]) -> None:
    weights = torch.tensor([[65504.0, -65504.0, 1.0, 2.0], [65504.0, 65504.0, 60000.0, 3.0]], dtype=torch.float16)
    for bits in (2, 3, 4, 8):
        assert bool(compress(one_matrix(weights), Recipe(quantize=make(bits))).weights["weight"].isfinite().all())


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (
            torch.ones(2, 2).to(torch.float8_e4m3fn),
            "weights.weight=float8_e4m3fn is not valid: must be one of float64, ",
        ),
        (torch.ones(2, 2).to(torch.float8_e5m2), "weights.weight=float8_e5m2 is not valid"),
        (torch.ones(2, 2, dtype=torch.complex64), "weights.weight=complex64 is not valid"),
        (
            torch.full((2, 2), 1e300, dtype=torch.float64),
            "weights.weight=values up to 1e[+]300 is not valid: must be at",
        ),
        (torch.full((2, 2), 3e38), "weights.weight=values up to 3e[+]38 is not valid: must be at most 8.51e[+]37"),
    ],
)
def test_what_cannot_be_computed_is_one_line(weights: Tensor, says: str) -> None:
    with pytest.raises(UserError, match=says):
        compress(one_matrix(weights), Recipe(quantize=Uniform(2)))


DECODERS: dict[str, Callable[..., PreTrainedModel]] = {
    "llama": lambda **sizes: LlamaForCausalLM(LlamaConfig(**sizes)),
    "mistral": lambda **sizes: MistralForCausalLM(MistralConfig(**sizes)),
    "qwen2": lambda **sizes: Qwen2ForCausalLM(Qwen2Config(**sizes)),
    "mixtral": lambda **sizes: MixtralForCausalLM(MixtralConfig(**sizes, num_local_experts=2)),
}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", DECODERS)
def test_buffers_that_were_rounded_are_so_in_the_packed_model(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """``model.to`` rounds the rotary frequencies, which no state dict holds; the library's loading does not."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    wide = DECODERS[name](vocab_size=60, max_position_embeddings=32, intermediate_size=24, **sizes).eval()
    recipe = Recipe(structure=Layers(0.5), quantize=Uniform(8)) if name != "mixtral" else Recipe(quantize=Uniform(8))
    for is_rounded in (False, True):
        result = compress(wide.to(dtype) if is_rounded else wide, recipe)
        save_packed(tmp_path / "packed", result)
        assert (tmp_path / "packed").stat().st_size == result.sizes.file_bytes
        assert bool(packed_header(tmp_path / "packed").buffers) == is_rounded
        again = load_packed(tmp_path / "packed")
        with torch.no_grad():
            assert torch.equal(again(IDS).logits, result.model()(IDS).logits)


def test_a_file_with_buffers_of_another_model_is_refused(tmp_path: Path) -> None:
    result = compress(bert(torch.bfloat16), Recipe(quantize=Uniform(8)))
    for buffers, why in (({"none": "bfloat16"}, "none is no buffer"), ({"none": "int8"}, "dtype")):
        packed = replace(result.packed, buffers=buffers)
        save_packed(tmp_path / "packed", replace(result, packed=packed))
        with pytest.raises(UserError, match=why):
            load_packed(tmp_path / "packed")
