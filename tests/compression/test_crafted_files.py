"""Packed files from strangers: what they ask for is checked first, and every mistake in them is told in one line."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression import (
    Binary,
    Dynamic,
    Heads,
    KMeans,
    LowRank,
    Magnitude,
    MinMax,
    Outliers,
    Recipe,
    Ternary,
    TokenFacts,
    TokenList,
    Uniform,
    compress,
    load_packed,
    load_packed_weights,
    save_packed,
)
from trainlarge.compression.stored import container
from trainlarge.compression.stored.packing import packed_header
from trainlarge.errors import UserError

from .crafted import crafted, resealed

RECIPES = [
    Recipe(Magnitude(0.95), Uniform(4, group_size=8)),
    Recipe(Magnitude(0.5), KMeans(3)),
    Recipe(Magnitude(0.9), None),
    Recipe(Magnitude(0.5, scope="block", m=4), MinMax(3, group_size=8)),
    Recipe(None, Outliers(3)),
    Recipe(None, Binary()),
    Recipe(Magnitude(0.6), Ternary()),
]
by_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=Recipe.describe)
MEMORY = 64 << 20
"""Bytes that Python and numpy may take for a crafted file of a few kilobytes."""
MOST = 8 << 20


@pytest.fixture
def packed(tmp_path: Path, roberta: PreTrainedModel) -> Callable[[Recipe], Path]:
    def write(recipe: Recipe) -> Path:
        save_packed(tmp_path / "packed", compress(roberta, recipe))
        return tmp_path / "packed"

    return write


def rewrite(path: Path, body: Any, tensors: dict[str, Tensor]) -> None:
    """Write a file with a checksum that is right, whatever is in it."""
    container.write(
        path, body, {name: container.TensorSpec.of(tensor) for name, tensor in tensors.items()}, tensors.items()
    )


def normal_layer() -> torch.nn.Linear:
    """A layer whose codes can be entropy-coded."""
    layer = torch.nn.Linear(256, 256)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    return layer


def outcome(path: Path) -> dict[str, Tensor] | UserError:
    """What loading gives: weights, or the one error that a file may cause."""
    try:
        return dict(load_packed(path, most_bytes=MOST).state_dict())
    except UserError as error:
        assert "\n" not in str(error)
        return error


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_packed(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in nested data."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


HUGE = 10**18
DEEP = json.loads("[" * 200 + "]" * 200)
VALUES = [
    None, True, -1, 0, 1, 3, 2**31, HUGE, 10**400, 0.5, "", "x", "float99", "load", "both", "dense", "gaps_codes", [],
    [HUGE], [-1, 5], [2**31, 2**31], [1] * 70, {}, {"encoding": "both"}, {"encoding": "sparse", "shape": [HUGE]}, DEEP,
]  # fmt: skip


def changed(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    body = copy.deepcopy(body)
    if not place:
        return value
    owner = body
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = value
    return body


@pytest.mark.parametrize(
    ("place", "value", "cause"),
    [
        (("codes", "shape"), [HUGE], f"{HUGE} bytes of 3 bits, 0 of them low ones, for 65536 weights"),
        (("codes", "shape"), [8], "32768 bytes in a frame of zstd in the place of 11"),
        (("codes", "shape"), [-1], "shape=[-1] is not valid"),
        (("codes", "bits"), 0, "24576 bytes of 0 bits"),
        (("codes", "low_bits"), 5, "24576 bytes of 3 bits, 5 of them low ones"),
        (("codes", "low_bits"), 4, "ZstdError: "),
        (("codes", "bits"), "x", "a whole number from 0 up"),
        (("codes",), 3, "codes=3 is not valid"),
        (("scales",), {"shape": [8], "bits": 8}, "KeyError: 'scales'"),
        ((), 7, "zstd=7 is not valid"),
    ],
)
def test_entropy_coded_parts_that_do_not_fit_are_refused(
    place: tuple[str, ...], value: object, cause: str, tmp_path: Path
) -> None:
    path = tmp_path / "packed"
    save_packed(path, compress(normal_layer(), Recipe(quantize=Uniform(3, "tensor"), entropy_coding="zstd")))
    body, tensors = container.read(path)
    assert "codes" in body["tensors"]["weight"]["zstd"]  # type: ignore[index, call-overload]
    note_place = ("tensors", "weight", "zstd", *place)
    if place == ("scales",):
        body["tensors"]["weight"]["zstd"]["scales"] = value  # type: ignore[index, call-overload]
    rewrite(path, body if place == ("scales",) else changed(body, note_place, value), tensors)
    with pytest.raises(UserError) as caught:
        load_packed_weights(path, most_bytes=MOST)
    assert "\n" not in str(caught.value) and cause in str(caught.value)


def test_a_damaged_frame_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packed"
    save_packed(path, compress(normal_layer(), Recipe(quantize=Uniform(3, "tensor"), entropy_coding="zstd")))
    body, tensors = container.read(path)
    codes = tensors["weight:codes"]
    for damaged in (codes[:9], codes[: len(codes) // 2], codes.new_zeros(16), codes.new_zeros(0)):
        rewrite(path, body, {**tensors, "weight:codes": damaged})
        with pytest.raises(UserError, match=r"packed.*tensors\.weight") as caught:
            load_packed_weights(path, most_bytes=MOST)
        assert "\n" not in str(caught.value)


@by_recipe
def test_mutated_data_load_or_are_refused_in_one_line(recipe: Recipe, packed: Callable[[Recipe], Path]) -> None:
    path, draw = packed(recipe), random.Random(0)
    assert not isinstance(outcome(path), UserError)
    body, tensors = container.read(path)
    found, refused = places(body), 0
    tracemalloc.start()
    for _ in range(15):
        place = draw.choice([place for place in found if place[:1] != ("recipe",)])
        mutated = changed(body, place, draw.choice(VALUES))
        if place and draw.random() < 0.2:
            owner = mutated
            for key in place[:-1]:
                owner = owner[key]
            del owner[place[-1]]
        rewrite(path, mutated, tensors)
        refused += isinstance(outcome(path), UserError)
    assert tracemalloc.get_traced_memory()[1] < MEMORY
    tracemalloc.stop()
    assert refused > 3


TYPED = [
    Recipe(Magnitude(0.95), Uniform(4, group_size=8), activations=Dynamic(8)),
    Recipe(Magnitude(0.5, scope="block", m=4), KMeans(3)),
    Recipe(Magnitude(0.5), Outliers(3), structure=Heads(0.5), factorize=LowRank(0.4)),
    Recipe(Magnitude(0.6), Ternary(), vocabulary=TokenList((7, 9, 11))),
]
"""Recipes whose files together have every key that a reader looks at."""
OTHER_TYPES: dict[type, Any] = {
    str: 3, int: "3", float: "0.5", bool: 7, list: "text", dict: [1], type(None): "text"
}  # fmt: skip


@pytest.mark.parametrize("recipe", TYPED, ids=Recipe.describe)
def test_a_value_of_another_type_is_named_with_its_file_and_key(
    recipe: Recipe, tmp_path: Path, modern: PreTrainedModel
) -> None:
    path, facts = tmp_path / "packed", TokenFacts(torch.ones(120, dtype=torch.int64), frozenset(range(5)), 3)
    save_packed(path, compress(modern, recipe, tokens=facts))
    body, tensors = container.read(path)
    parts = ("tensors", "structure", "activations")
    found = [place for place in places(body) if place and (place[0] in parts or len(place) == 1)]
    # One tensor of each encoding says as much as all of them.
    examples = {note["encoding"]: name for name, note in body["tensors"].items()}.values()
    for place in found:
        if place[0] == "tensors" and len(place) > 1 and place[1] not in examples:
            continue
        owner = body
        for key in place:
            owner = owner[key]  # type: ignore[index, call-overload, assignment]
        rewrite(path, changed(body, place, OTHER_TYPES[type(owner)]), tensors)
        said = refusal(path, most_bytes=MOST)
        named = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)[1:]
        assert said.startswith(f"packed={path} is not valid: ")
        # A shape is read as a whole.
        assert f"{named.partition('.shape[')[0]}" in said


@by_recipe
def test_mutated_tensors_load_or_are_refused_in_one_line(recipe: Recipe, packed: Callable[[Recipe], Path]) -> None:
    path, draw = packed(recipe), random.Random(1)
    body, tensors = container.read(path)
    for _ in range(8):
        name = draw.choice([name for name in tensors if ":" in name])
        tensor = tensors[name]
        mutation = draw.choice(
            [
                tensor[:-1] if tensor.ndim and len(tensor) else tensor,
                torch.cat([tensor, tensor]) if tensor.ndim else tensor[None],
                tensor.reshape(-1)[:0],
                tensor.double(),
                tensor.flatten()[None, None],
                torch.randint(0, 255, tensor.shape).to(tensor.dtype),
                torch.full_like(tensor, 255) if tensor.dtype == torch.uint8 else tensor * float("nan"),
            ]
        )
        rewrite(path, body, {**tensors, name: mutation})
        outcome(path)
        rewrite(path, body, {key: tensor for key, tensor in tensors.items() if key != name})
        assert isinstance(outcome(path), UserError)


@by_recipe
def test_damaged_bytes_are_refused_in_one_line(recipe: Recipe, packed: Callable[[Recipe], Path]) -> None:
    path, draw = packed(recipe), random.Random(2)
    content = path.read_bytes()
    for _ in range(15):
        position = draw.randrange(len(content)) if draw.random() < 0.5 else draw.randrange(200)
        flipped = content[:position] + bytes([content[position] ^ 1 << draw.randrange(8)]) + content[position + 1 :]
        path.write_bytes(draw.choice([flipped, content[: draw.randrange(len(content))]]))
        assert isinstance(outcome(path), UserError)


@by_recipe
def test_a_file_that_is_crafted_byte_by_byte_loads_or_is_refused_in_one_line(
    recipe: Recipe, packed: Callable[[Recipe], Path]
) -> None:
    path, draw, refused = packed(recipe), random.Random(3), 0
    content = path.read_bytes()
    assert resealed(content[8 : (end := 8 + struct.unpack("<Q", content[:8])[0])], content[end:]) == content
    tracemalloc.start()
    for _ in range(25):
        path.write_bytes(crafted(content, draw))
        started = time.monotonic()
        refused += isinstance(outcome(path), UserError)
        with suppress(UserError):
            packed_header(path)
        assert time.monotonic() - started < 10
    assert tracemalloc.get_traced_memory()[1] < MEMORY
    tracemalloc.stop()
    assert 5 < refused < 25


def with_header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Write the header of safetensors anew, with a checksum that is right."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["checksum"] = "0" * 64
    text = change(header)
    text = (text if isinstance(text, str) else json.dumps(text)).encode()
    head = struct.pack("<Q", len(text)) + text
    rest = content[8 + length :]
    checksum = hashlib.sha256(head + rest).hexdigest()
    path.write_bytes(head.replace(b"0" * 64, checksum.encode(), 1) + rest)


def test_the_header_written_anew_is_read(packed: Callable[[Recipe], Path]) -> None:
    path = packed(RECIPES[0])
    # Copies: they lie in pages of the file, which is written over.
    before = {name: tensor.clone() for name, tensor in load_packed_weights(path).items()}
    with_header(path, lambda header: header)
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_packed_weights(path).items())


def _nested(key: str) -> Callable[[dict[str, Any]], Any]:
    def change(header: dict[str, Any]) -> Any:
        header["__metadata__"][key] = "[" * 100_000
        return header

    return change


def _set(key: str, value: str) -> Callable[[dict[str, Any]], Any]:
    return lambda header: {**header, "__metadata__": {**header["__metadata__"], key: value}}


def _entry(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    def change(header: dict[str, Any]) -> Any:
        name = next(name for name in header if name != "__metadata__")
        header[name] |= changes
        return header

    return change


def _twice(header: dict[str, Any]) -> str:
    name = next(name for name in header if name != "__metadata__")
    text = json.dumps(header)
    return text[:-1] + f', "{name}": {json.dumps(header[name])}' + "}"


HEADERS = [
    _nested("packed"), _set("packed", "{}"), _set("packed", "[]"), _set("packed", "1" * 10_000), _set("format", "²"),
    _set("format", "9" * 5000), _set("checksum", ""), _set("checksum", "a"), _entry(shape=[HUGE, HUGE]),
    _entry(shape=[2**62]), _entry(shape=[-1]), _entry(dtype="F8_E4M3"), _entry(dtype="C64"), _entry(dtype=7),
    _entry(data_offsets=[0, HUGE]), _entry(data_offsets=[8, 4]), lambda header: [], lambda header: "[" * 50_000,
]  # fmt: skip


@pytest.mark.parametrize("change", HEADERS, ids=range(len(HEADERS)))
def test_a_mutated_header_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], Any], packed: Callable[[Recipe], Path]
) -> None:
    path = packed(RECIPES[0])
    with_header(path, change)
    assert refusal(path).startswith("packed=")
    with pytest.raises(UserError):
        load_packed_weights(path)


def test_a_name_twice_in_the_header_changes_nothing(packed: Callable[[Recipe], Path]) -> None:
    path = packed(RECIPES[0])
    before = outcome(path)
    with_header(path, _twice)
    after = outcome(path)
    assert isinstance(after, UserError) or all(torch.equal(after[name], before[name]) for name in before)  # type: ignore[index, call-overload]


def test_what_a_file_says_of_itself_is_read_without_a_traceback(packed: Callable[[Recipe], Path]) -> None:
    path = packed(RECIPES[0])
    for body in ({}, {"parent": 3}):
        rewrite(path, body, {})
        with pytest.raises(UserError, match="packed="):
            packed_header(path)


def zeros(count: int) -> dict[str, Any]:
    return {"encoding": "gaps", "shape": [count], "gap_bits": 8, "gaps": 0}


EMPTY = {"gaps": torch.zeros(0, dtype=torch.uint8), "values": torch.zeros(0)}


def test_a_small_file_cannot_ask_for_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "packed"
    rewrite(path, {"tensors": {"a": zeros(1 << 29)}}, {f"a:{name}": part for name, part in EMPTY.items()})
    with pytest.raises(
        UserError, match=rf"which asks for {1 << 31} is not valid: must be at most {1 << 30} bytes .*most_bytes"
    ):
        load_packed_weights(path)
    many = {str(index): zeros(1 << 20) for index in range(300)}
    rewrite(path, {"tensors": many}, {f"{key}:{name}": part for key in many for name, part in EMPTY.items()})
    with pytest.raises(UserError, match="most_bytes"):
        load_packed_weights(path)
    assert len(load_packed_weights(path, most_bytes=2 << 30)) == 300


def test_the_smallest_files_that_a_method_makes_are_read() -> None:
    """99.99 % of the weights pruned: far below the allowed expansion."""
    from trainlarge.compression.stored.checked import MOST_EXPANSION
    from trainlarge.compression.stored.dense import Dense
    from trainlarge.compression.stored.encodings import smallest

    tensor = torch.zeros(1000, 1000)
    tensor.view(-1)[9_999::10_000] = 1.0
    stored = Dense(tensor)
    assert 4 * tensor.numel() / smallest(stored).bytes(stored) < MOST_EXPANSION / 3


@pytest.mark.parametrize(
    "change, said",
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000: must be at most 1024"),
        ({"num_hidden_layers": 1000, "num_local_experts": 1000}, "1000 experts in 1000 layers: must be at most 65536"),
        ({"num_labels": 10**9}, "num_labels 1000000000: must be at most"),
        ({"vocab_size": 10**12}, "vocab_size 1000000000000: must be at most"),
        ({"vocab_size": 2**30}, "most_bytes"),
        ({"max_position_embeddings": 2**31 - 1}, "most_bytes"),
        ({"hidden_size": 2**30, "num_attention_heads": 1}, "packed="),
        ({"vocab_size": 121}, "weights."),
        ({"hidden_size": -1}, "packed="),
        ({"hidden_size": "large"}, "packed="),
        ({"attn_implementation": "some/kernel"}, "attn_implementation some/kernel: must be eager or sdpa"),
        ({"_attn_implementation": "kernels-community/flash-attn2"}, "must be eager or sdpa"),
        ({"text_config": {"attn_implementation": {"": "some/kernel"}}}, "must be eager or sdpa"),
        ({"use_pretrained_backbone": True, "backbone": "resnet18"}, "must be a model that fetches no other"),
    ],
    ids=str,
)
def test_a_crafted_configuration_is_refused_before_anything_is_made(
    change: dict[str, Any], said: str, packed: Callable[[Recipe], Path]
) -> None:
    path = packed(RECIPES[0])
    body, tensors = container.read(path)
    body["config"] |= change
    rewrite(path, body, tensors)
    tracemalloc.start()
    assert said in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < MEMORY
    tracemalloc.stop()


@pytest.mark.parametrize(
    "name",
    [
        "AutoModelForMaskedLM",
        "Trainer",
        "pipeline",
        "PreTrainedModel",
        "os.system",
        "BertConfig",
        3,
        None,
        [],
    ],
)
def test_only_known_models_are_built(name: Any, packed: Callable[[Recipe], Path]) -> None:
    path = packed(RECIPES[0])
    body, tensors = container.read(path)
    rewrite(path, {**body, "architecture": name}, tensors)
    assert "packed=" in refusal(path)


def test_a_model_of_python_files_is_built_from_the_library_alone(packed: Callable[[Recipe], Path]) -> None:
    path = packed(RECIPES[0])
    expected = load_packed(path).state_dict()
    body, tensors = container.read(path)
    body["config"]["auto_map"] = {"AutoModelForMaskedLM": "somebody/model--modeling.Evil"}
    rewrite(path, body, tensors)
    loaded = load_packed(path)
    assert not hasattr(loaded.config, "auto_map")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


def test_crafted_structure_takes_no_memory(packed: Callable[[Recipe], Path]) -> None:
    path = packed(RECIPES[0])
    body, tensors = container.read(path)
    for structure in (
        {"tokens": {"size": HUGE, "unknown": 1, "kept": "AA=="}},
        {"layers": [HUGE]},
        {"layers": []},
        {"layers": [-1]},
        {"heads": [[1] * 10, [1]]},
        {"neurons": [HUGE, HUGE]},
        {"ranks": {"roberta_prelayernorm.encoder.layer.0.output.dense": HUGE}},
        {"ranks": {"nowhere": 3}},
        {"other": 1},
        [],
        "text",
    ):
        rewrite(path, {**body, "structure": structure}, tensors)
        tracemalloc.start()
        if structure:
            refusal(path)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
        tracemalloc.stop()
