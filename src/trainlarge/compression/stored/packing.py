"""Packed files: a compressed checkpoint in one self-contained safetensors file, and back to a ready model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from trainlarge.compression.activations import Ranges, roundings
from trainlarge.compression.layout.shapes import Structure
from trainlarge.compression.layout.skeleton import reshape
from trainlarge.compression.stored import container
from trainlarge.compression.stored.checked import Shapes, built, bytes_of, check_size, checked_shapes, told_in_a_line
from trainlarge.compression.stored.container import Parts
from trainlarge.compression.stored.encodings import Encoding, encoding_named, smallest
from trainlarge.compression.stored.forms import Form
from trainlarge.compression.weights import Weights, adopt_dtypes, check_same_shapes, load_reshaped, load_weights
from trainlarge.config.recipe import Recipe
from trainlarge.errors import UserError
from trainlarge.models.input_rounding import InputRounding, round_inputs
from trainlarge.sweep.store import cell_of_result

if TYPE_CHECKING:
    from trainlarge.compression.grid import Compressed

PARENT_WIDTH = 64
"""Characters kept free for the parent's id, so that the size of the file does not depend on it."""


@dataclass(frozen=True, eq=False)
class Packed:
    """What goes into the packed file; encoded only when it is written."""

    recipe: Recipe
    """How the weights were made."""

    architecture: str
    """Class name of the model."""

    config: Mapping[str, Any]
    """The model's Hugging Face configuration."""

    forms: Mapping[str, Form]
    """Tensor name -> form; tied tensors once."""

    structure: Structure = field(default_factory=Structure)
    """What is left of the shapes that ``config`` tells of."""

    ranges: Ranges = field(default_factory=dict)
    """The layers whose inputs are rounded, with their ranges."""

    @classmethod
    def of(cls, recipe: Recipe, weights: Weights, forms: Mapping[str, Form], ranges: Ranges) -> Packed:
        """The packed form of ``weights`` after ``recipe`` turned them into ``forms``, and inputs of ``ranges``."""
        return cls(recipe, weights.architecture, weights.config, forms, weights.structure, ranges)

    @property
    def roundings(self) -> dict[str, InputRounding]:
        """Name of a layer -> how its inputs are rounded."""
        return roundings(self.recipe.activations, self.ranges)

    @cached_property
    def encodings(self) -> dict[str, Encoding[Any]]:
        """Tensor name -> the encoding that takes the fewest bytes."""
        return {name: smallest(form) for name, form in self.forms.items()}

    def payload_bytes(self, name: str) -> int:
        """Bytes that one tensor takes in the file, without its share of the header."""
        return self.encodings[name].bytes(self.forms[name])

    def file_bytes(self) -> int:
        """Exact size of the file, by formula."""
        return container.file_bytes(self.body(), self.layout())

    def layout(self) -> Parts:
        """What is known of the tensors of the file before they are encoded."""
        layout: Parts = {}
        for name, form in self.forms.items():
            layout |= _named(name, self.encodings[name].layout(form))
        return layout

    def encoded(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of everything in the file, encoded when its turn comes."""
        for name, form in self.forms.items():
            yield from _named(name, self.encodings[name].encode(form)).items()

    def body(self, parent: str = "") -> dict[str, Any]:
        """The JSON data of the file. A tensor without a note is dense; ``config`` is that of the checkpoint,
        ``structure`` says what is left of its shapes, where something was removed or factorized, and ``activations``
        which layers round their inputs, with a fixed range or null."""
        return {
            "parent": parent.ljust(PARENT_WIDTH),
            "recipe": self.recipe.to_json(),
            "architecture": self.architecture,
            "config": self.config,
            **({"structure": self.structure.to_json()} if self.structure else {}),
            **({"activations": self.ranges} if self.ranges else {}),
            "tensors": {name: self._note(name) for name, way in self.encodings.items() if way.name != "dense"},
        }

    def _note(self, name: str) -> dict[str, Any]:
        way = self.encodings[name]
        return {"encoding": way.name, **way.note(self.forms[name])}


def save_packed(path: str | Path, compressed: Compressed, parent: str = "") -> None:
    """Write a compressed model to ``path``, whole or not at all: an error leaves an older file untouched.

    Args:
        path: file to write; its folder is made where it is missing.
        compressed: what ``compress`` gave.
        parent: id of the train cell that the checkpoint comes from, at most 64 plain (ASCII) characters.
    """
    if len(parent) > PARENT_WIDTH or not parent.isascii():
        raise UserError("parent", parent, f"at most {PARENT_WIDTH} plain characters")
    packed = compressed.packed
    container.write(Path(path), packed.body(parent), packed.layout(), packed.encoded())


def load_packed_weights(path: str | Path, most_bytes: int | None = None) -> dict[str, Tensor]:
    """Tensor name -> float tensor: bit by bit the weights that were evaluated (``Compressed.weights``), tied ones once.

    Args:
        most_bytes: what the weights may take; None: 1 GiB, or 4,096 times the size of the file where that is more.

    Raises UserError for a file that is missing, truncated, damaged, of a newer format or not a packed file, and for one
    that asks for more memory, before any is taken.
    """
    path = Path(path)
    body, tensors = _read(path)
    return _decoded(path, *_checked(path, body, tensors, most_bytes)[:2])


def load_packed(path: str | Path, model: nn.Module | None = None, most_bytes: int | None = None) -> nn.Module:
    """The model of a packed file, ready to use (evaluation mode), built from the configuration in the file.

    Where the recipe rounds activations, so does the model: hooks before its linear layers, which ``save_pretrained``
    does not write.
    Where the vocabulary was cut, the model reads and predicts the numbers of the tokens that are left; its buffer
    ``kept_tokens`` holds their numbers in the checkpoint. With ``model``, one with the shapes of the checkpoint, the
    weights are loaded into that one, in its own data types, and it is cut to the shapes of the file. Raises UserError
    as ``load_packed_weights`` does, and where the file belongs to another model. A file may come from anybody: only
    models of transformers are built, without code or kernels from elsewhere, and nothing is fetched.

    Args:
        most_bytes: as in ``load_packed_weights``; it limits the model before its shapes were cut, too.
    """
    path = Path(path)
    body, tensors = _read(path)
    notes, parts, shapes = _checked(path, body, tensors, most_bytes)
    with told_in_a_line(path):
        structure, rounded = Structure.from_json(body.get("structure", {})), _roundings(body)
        if model is None:
            model = _built(path, body, structure, shapes, most_bytes)
            weights = _decoded(path, notes, parts)
            reshape(model, structure)
            adopt_dtypes(model, weights)
            load_weights(model, weights)
        else:
            load_reshaped(model, structure, _decoded(path, notes, parts))
        round_inputs(model, rounded)
    return model.eval()


def packed_header(path: str | Path) -> dict[str, Any]:
    """What a packed file says of itself, without reading its weights: parent, recipe, architecture, config, tensors,
    structure where shapes were changed, and activations where inputs of layers are rounded."""
    body = container.read_body(Path(path))
    with told_in_a_line(Path(path)):
        return {**body, "parent": body["parent"].rstrip()}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What lies in the file, which must be that of the record where it lies in the folder of a finished cell."""
    if (cell := cell_of_result(path)) is not None:
        cell.prove(cell.packed.name)
    return container.read(path)


def _named(name: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Part names in the file: the tensor's own for a part without name, else with a colon, which no tensor name has."""
    return {f"{name}:{part}" if part else name: value for part, value in parts.items()}


def _checked(
    path: Path, body: Mapping[str, Any], tensors: Mapping[str, Tensor], most_bytes: int | None
) -> tuple[Mapping[str, Any], dict[str, dict[str, Tensor]], Shapes]:
    """Notes, parts and shapes of the tensors of a file, which fit into the memory that they may take."""
    parts: dict[str, dict[str, Tensor]] = {}
    for entry, tensor in tensors.items():
        name, _, part = entry.partition(":")
        parts.setdefault(name, {})[part] = tensor
    with told_in_a_line(path):
        notes = dict(body["tensors"])
    shapes = checked_shapes(path, notes, parts)
    check_size(path, bytes_of(shapes), most_bytes)
    return notes, parts, shapes


def _decoded(path: Path, notes: Mapping[str, Any], parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    with told_in_a_line(path):
        return {name: _dense(notes.get(name, {"encoding": "dense"}), own) for name, own in parts.items()}


def _roundings(body: Mapping[str, Any]) -> dict[str, InputRounding]:
    ranges = body.get("activations", {})
    return roundings(Recipe.from_json(body["recipe"]).activations, ranges) if ranges else {}


def _dense(note: Mapping[str, Any], parts: Mapping[str, Tensor]) -> Tensor:
    return encoding_named(note["encoding"]).decode(note, parts).dense()


def _built(
    path: Path, body: Mapping[str, Any], structure: Structure, shapes: Shapes, most_bytes: int | None
) -> nn.Module:
    def check_shapes(empty: nn.Module) -> None:
        reshape(empty, structure)
        check_same_shapes(empty, shapes)

    return built(path, body["architecture"], body["config"], check_shapes, most_bytes)
