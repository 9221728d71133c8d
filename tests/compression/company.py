"""Recipes of every registered method with constraints that differ, and what becomes of them alone and in company."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from trainlarge.compression import Compressed, Recipe, Weights, compress_grid
from trainlarge.compression.calibration import Calibration
from trainlarge.compression.layout.tokens import TokenFacts, renumbered
from trainlarge.compression.training_data import DataTrainer, TrainingData
from trainlarge.config.method import METHODS, Method
from trainlarge.config.quantize import Uniform
from trainlarge.config.recover import Recovery, Retrain
from trainlarge.config.schema import ImplConfig
from trainlarge.errors import UserError

from .structure.conftest import VOCABULARY, made

LAYERS = 3
"""Of the models: the fewest of which one in the middle can be removed. All pairs of methods are many grids."""
VALUES: dict[str, tuple[Any, ...]] = {
    "sparsity": (0.3, 0.5, 0.6, 0.75, 0.999999),
    "m": (None, 4, 8, 5),
    "keep": (0.1, 0.4, 0.5, 0.9),
    "bits": (2, 3, 4, 8),
    "embedding_bits": (None, 2, 8),
    "group_size": (None, 7, 10, 64),
    "percentile": (None, 90.0, 99.0),
    "sigma": (None, 2.5, 20.0),
    "embedding_sigma": (None, 4.0),
    "damping": (1e-300, 0.01, 0.5),
    "block_size": (4, 8, 20, 128),
    "calibration_rows": (1, 2, 128),
    "iterations": (1, 100),
    "share": (0.0, 0.02, 0.5),
    "seed": (0, 1),
    "rank": (1, 5, 500),
    "rounds": (1, 3),
    "size": (2, 20, VOCABULARY, 10_000),
    "layers": ((0,), (0, 2), (1, LAYERS)),
    "tokens": ((9, 40, 59), (5,), (VOCABULARY,)),
    "budget": ("2 steps", "3 steps", "0.5 parent", "until 0.9 dense", "1 parent"),
    "round": (0.15, 0.3),
    "warmup": (0.0, 0.25, 0.6),
    "cooldown": (0.0, 0.25, 0.5),
    "every": (1, 10),
    "scores_lr": (0.01, 3.0),
    "threshold": (0.0, 0.1, 0.4),
    "regularization": (0.0, 100.0),
    "quantize_aware": (0.0, 0.5, 1.0),
    "at_most": (None, "3 steps"),
    "rewind": ("none", "initial", "2 steps"),
    "checks": (20, 2),
    "lr": (1e-3, 1e-2, 1e30, None),
    "teacher": ("parent", "0123456789ab"),
    "task_weight": (0.0, 0.5),
    "logits_weight": (1.0, 0.0),
    "hidden_weight": (1.0, 0.0),
    "attention_weight": (0.0, 1.0),
    "temperature": (1.0, 2.0),
    "layer_map": ("uniform", "kept", "last", "many", (0,), (0, 1, 2, 3), ((0, 1), (1, 2))),
    "stages": (1, 2, 3),
}
"""Field -> values, some of which fit together, some not, and some not with the model. Fields of a closed set of values
need no entry."""

KINDS = [kind for methods in METHODS.values() for kind in methods.values()]
BATCHES = [
    {key: torch.randint(4, VOCABULARY, (2, 16), generator=torch.Generator().manual_seed(seed))
     for key in ("input_ids", "labels")}
    for seed in (1, 2)
]  # fmt: skip
FACTS = TokenFacts(torch.arange(VOCABULARY), special=frozenset(range(4)), unknown=3)
TEXT = torch.randint(4, VOCABULARY, (3, 16), generator=torch.Generator().manual_seed(3))

Outcome = tuple[Any, ...]
"""What became of a recipe: the digest of its file, sizes and metrics, or the text of its refusal."""


@cache
def variants(kind: type[Method], most: int = 12) -> tuple[Method, ...]:
    """Methods of one class that differ: every value of every field, and fields drawn together."""
    draw, types = random.Random(kind.name), get_type_hints(kind)
    choices = {item.name: _values(item.name, types[item.name]) for item in fields(kind)}
    needed = {item.name: choices[item.name][0] for item in fields(kind) if item.default is MISSING}
    one_changed = [needed | {name: value} for name, values in choices.items() for value in values]
    drawn = [{name: draw.choice(values) for name, values in choices.items()} for _ in range(200)]
    found = list(dict.fromkeys(part for given in one_changed + drawn if (part := _built(kind, given))))
    return tuple(draw.sample(found, min(most, len(found))))


def recipes(seed: int, count: int) -> list[Recipe]:
    """Recipes of one to three methods of different slots, in any order."""
    draw = random.Random(seed)
    return [_recipe(draw) for _ in range(count)]


def of(part: Method, *others: Method) -> Recipe:
    """The recipe of these methods, in this order, with the others that they need.

    Raises:
        UserError: they do not go together.
    """
    methods = list(_with_needed((part, *others)))
    return Recipe(**{each.slot: each for each in methods}, order=[each.slot for each in methods])


def _with_needed(methods: Sequence[Method]) -> Iterator[Method]:
    """A method that works while the model trains needs training, and training that knows of quantization needs one."""
    slots = {method.slot for method in methods}
    for method in methods:
        if isinstance(method, Uniform) and method.is_learned and "recover" not in slots:
            yield Retrain("2 steps", quantize_aware=1.0)
        yield method
        if method.needs_training and "recover" not in slots:
            yield Retrain("2 steps", lr=1e-3)
        if isinstance(method, Recovery) and method.quantize_aware and "quantize" not in slots:
            yield Uniform(bits=4)


def outcomes(group: Sequence[Recipe], model: str = "modern") -> list[Outcome]:
    """What becomes of each recipe of a grid."""
    found: dict[int, Outcome] = {}
    whole = made(model, LAYERS)
    weights = Weights.of(whole)

    def refused(position: int, error: UserError) -> None:
        found[position] = ("refused", str(error))

    calibration = Calibration(weights, whole, lambda: BATCHES)
    impl = ImplConfig(device="cpu", threads=1)
    trainer = DataTrainer(TrainingData(lambda step: BATCHES[step % 2], impl=impl, score=_loss), weights)
    for position, compressed in compress_grid(weights, group, calibration, FACTS, refused, trainer):
        found[position] = _outcome(compressed)
    return [found[position] for position in range(len(group))]


@cache
def alone(recipe: Recipe, model: str = "modern") -> Outcome:
    """What becomes of a recipe without company."""
    [outcome] = outcomes([recipe], model)
    return outcome


def agree(group: Sequence[Recipe], model: str = "modern") -> None:
    """Check that each recipe of a grid becomes what it becomes alone."""
    found = outcomes(group, model)
    for recipe, outcome in zip(group, found, strict=True):
        others = [other.describe() for other in group if other is not recipe]
        assert outcome == alone(recipe, model), f"{recipe!r} in company of {others}"


@torch.no_grad()
def _loss(model: nn.Module) -> float:
    """Of some rows; a model with fewer tokens reads others in the place of those that it has not."""
    ids = BATCHES[0]["input_ids"] % model.get_input_embeddings().num_embeddings  # type: ignore[operator,union-attr]
    return float(model(input_ids=ids, labels=ids).loss)


def _outcome(compressed: Compressed) -> Outcome:
    digest = hashlib.sha256(json.dumps(compressed.packed.body(), sort_keys=True).encode())
    for name, tensor in compressed.packed.encoded():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + _bytes(tensor))
    for name, tensor in compressed.weights.items():
        digest.update(name.encode() + _bytes(tensor))
    with torch.no_grad():
        logits = compressed.model()(renumbered(TEXT, compressed.left.structure.tokens)).logits
    return "done", digest.hexdigest(), asdict(compressed.sizes), float(logits.double().square().mean())


def _bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def _recipe(draw: random.Random) -> Recipe:
    while True:
        slots = draw.sample([slot for slot in METHODS if METHODS[slot]], draw.choice([1, 2, 2, 3]))
        slots.sort(key=lambda slot: slot == "activations")
        with suppress(UserError):
            return of(*(draw.choice(variants(draw.choice(list(METHODS[slot].values())))) for slot in slots))


def _values(name: str, kind: Any) -> tuple[Any, ...]:
    if name in VALUES:
        return VALUES[name]
    return tuple(_closed(kind))


def _closed(kind: Any) -> Iterator[Any]:
    """The values of a type that has few; an error names a type that has many, which VALUES must list."""
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    elif kind is bool:
        yield from (False, True)
    else:
        raise LookupError(f"{kind}: give values for this field in VALUES")


def _built(kind: type[Method], given: dict[str, Any]) -> Method | None:
    try:
        return kind(**given)
    except UserError:
        return None
