"""Packed files: a compressed checkpoint in one self-contained safetensors file, and back to a ready model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from trainlarge.compression.input_ranges import Ranges, quantizers_of
from trainlarge.compression.layout.shapes import Structure
from trainlarge.compression.layout.skeleton import reshape
from trainlarge.compression.model_tensors import (
    adopt_dtypes,
    check_same_shapes,
    load_reshaped,
    load_weights,
    round_buffers,
)
from trainlarge.compression.stored import container
from trainlarge.compression.stored.checked import (
    Shapes,
    bytes_of,
    check_size,
    checked_shapes,
    invalid_file_errors,
    model_of_file,
)
from trainlarge.compression.stored.container import Layout
from trainlarge.compression.stored.encodings import DENSE, Encoding, decoded, names_in_file, smallest, smallest_coded
from trainlarge.compression.stored.entropy import ZSTD
from trainlarge.compression.stored.note import Note, dtype_in, dtype_name
from trainlarge.compression.stored.payload import Tensors
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.compression.weights import Weights
from trainlarge.config.group import Plain
from trainlarge.config.recipe import NO_METHOD, Recipe
from trainlarge.config.typed_json import read
from trainlarge.errors import UserError
from trainlarge.models.fake_quantize import FakeQuantizer, fake_quantize_inputs
from trainlarge.sweep.store import cell_of_result

if TYPE_CHECKING:
    from trainlarge.compression.compressed import Compressed

PARENT_WIDTH = 64
"""Characters kept free for the parent's id, so that the size of the file does not depend on it."""


@dataclass(frozen=True, eq=False)
class Packed:
    """What goes into the packed file; encoded only when it is written."""

    recipe: Recipe
    """How the weights were made."""

    architecture: str
    """Class name of the model."""

    config: Mapping[str, object]
    """The model's Hugging Face configuration."""

    stored: Mapping[str, StoredTensor]
    """Tensor name -> stored tensor; tied tensors once."""

    structure: Structure = field(default_factory=Structure)
    """What is left of the shapes of ``config``."""

    ranges: Ranges = field(default_factory=dict)
    """The layers whose inputs are quantized, with their ranges."""

    buffers: Mapping[str, str] = field(default_factory=dict)
    """Name of a buffer that a model computes when it is made -> the data type to which it was rounded."""

    @classmethod
    def of(cls, recipe: Recipe, weights: Weights, stored: Mapping[str, StoredTensor], ranges: Ranges) -> Packed:
        """What ``recipe`` made of ``weights``: the stored tensors, and the ranges of the quantized inputs."""
        buffers = {name: dtype_name(dtype) for name, dtype in weights.rounded_buffers().items()}
        return cls(recipe, weights.architecture, weights.config, stored, weights.structure, ranges, buffers)

    @property
    def quantizers(self) -> dict[str, FakeQuantizer]:
        """Name of a layer -> how its inputs are quantized."""
        return quantizers_of(self.recipe.activations, self.ranges)

    @cached_property
    def encodings(self) -> dict[str, Encoding[Any]]:
        """Tensor name -> the encoding that takes the fewest bytes."""
        plain = {name: smallest(tensor, name) for name, tensor in self.stored.items()}
        if self.recipe.entropy_coding != ZSTD:
            return plain
        coded = {name: smallest_coded(tensor, name) for name, tensor in self.stored.items()}
        # The length of the header is rounded up, so what is smaller alone may be larger together.
        return min(plain, coded, key=self._file_bytes)

    def payload_bytes(self, name: str) -> int:
        """Bytes of one tensor in the file, without its share of the header."""
        return self.encodings[name].bytes(self.stored[name])

    def file_bytes(self) -> int:
        """Exact size of the file: by formula, unless codes are entropy-coded."""
        return self._file_bytes(self.encodings)

    def _file_bytes(self, encodings: Mapping[str, Encoding[Any]]) -> int:
        return container.file_bytes(self._body("", encodings), self._layout(encodings))

    def entropy_coded(self) -> Packed:
        """The same with entropy coding."""
        return replace(self, recipe=replace(self.recipe, entropy_coding=ZSTD))

    def layout(self) -> Layout:
        """Data types and shapes in the file, known before it is written."""
        return self._layout(self.encodings)

    def _layout(self, encodings: Mapping[str, Encoding[Any]]) -> Layout:
        layout: Layout = {}
        for name, tensor in self.stored.items():
            layout |= names_in_file(name, encodings[name].layout(tensor))
        return layout

    def encoded(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of everything in the file, encoded one after the other."""
        for name, tensor in self.stored.items():
            yield from names_in_file(name, self.encodings[name].encode(tensor)).items()

    def body(self, parent: str = "") -> dict[str, object]:
        """The JSON data of the file.

        A tensor without a note is dense; ``config`` is that of the checkpoint, ``structure`` says what is left of its
        shapes, where something was removed or factorized, and ``activations`` which layers quantize their inputs, with
        a fixed range or null. ``buffers`` are those that a model computes when it is made, and that were rounded. The
        recipe says how the weights were made: how they are coded is said by the notes alone.
        """
        return self._body(parent, self.encodings)

    def _body(self, parent: str, encodings: Mapping[str, Encoding[Any]]) -> dict[str, object]:
        body: dict[str, object] = {
            "parent": parent.ljust(PARENT_WIDTH),
            "recipe": replace(self.recipe, entropy_coding=NO_METHOD).to_json(),
            "architecture": self.architecture,
            "config": self.config,
        }
        if self.structure:
            body["structure"] = self.structure.to_json()
        if self.ranges:
            body["activations"] = self.ranges
        if self.buffers:
            body["buffers"] = self.buffers
        body["tensors"] = {
            name: encoding.full_note(self.stored[name])
            for name, encoding in encodings.items()
            if encoding.name != DENSE
        }
        return body


@dataclass(frozen=True)
class PackedHeader:
    """What a packed file says of itself: its JSON data, which ``Packed.body`` describes."""

    tensors: dict[str, dict[str, Plain]]
    """Tensor name -> how it is encoded; one without a note is dense."""

    recipe: dict[str, Plain] = field(default_factory=dict)
    """How the weights were made, for ``Recipe.from_json``."""

    architecture: str = ""
    """Class name of the model."""

    config: dict[str, Plain] = field(default_factory=dict)
    """The Hugging Face configuration of the checkpoint."""

    parent: str = ""
    """Id of the train cell that the checkpoint comes from."""

    structure: dict[str, Plain] = field(default_factory=dict)
    """What is left of the shapes, for ``Structure.from_json``; empty where nothing was removed."""

    activations: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    """Layers that quantize their inputs -> fixed range, or None."""

    buffers: dict[str, str] = field(default_factory=dict)
    """Buffers that a model computes when it is made -> data type to which they are rounded."""

    @property
    def quantizers(self) -> dict[str, FakeQuantizer]:
        """Name of a layer -> how its inputs are quantized."""
        if not self.activations:
            return {}
        return quantizers_of(Recipe.from_json(self.recipe).activations, self.activations)


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
    header, tensors = _read(path)
    return _decoded(path, header, _checked(path, header, tensors, most_bytes)[0])


def load_packed(path: str | Path, model: nn.Module | None = None, most_bytes: int | None = None) -> nn.Module:
    """The model of a packed file, ready to use (evaluation mode), built from the configuration in the file.

    Where the recipe quantizes activations, so does the model: hooks before its linear layers, which ``save_pretrained``
    does not write.
    Where the vocabulary was cut, the model reads and predicts the numbers of the tokens that are left; its buffer
    ``kept_tokens`` holds their numbers in the checkpoint. With ``model``, one with the shapes of the checkpoint, the
    weights are loaded into that one, in its own data types, and it is cut to the shapes of the file. Raises UserError
    as ``load_packed_weights`` does, and where the file belongs to another model. A file may come from anybody: only
    models of transformers are built, without code or kernels from elsewhere, and nothing is downloaded.

    Args:
        most_bytes: as in ``load_packed_weights``; it limits the model before its shapes were cut, too.
    """
    path = Path(path)
    header, tensors = _read(path)
    parts, shapes = _checked(path, header, tensors, most_bytes)
    with invalid_file_errors(path, "structure"):
        structure = Structure.from_json(header.structure)
    with invalid_file_errors(path):
        quantizers = header.quantizers
        if model is None:
            model = _built(path, header, structure, shapes, most_bytes)
            weights = _decoded(path, header, parts)
            reshape(model, structure)
            adopt_dtypes(model, weights)
            load_weights(model, weights)
            round_buffers(model, {name: dtype_in({"dtype": dtype}) for name, dtype in header.buffers.items()})
        else:
            load_reshaped(model, structure, _decoded(path, header, parts))
        fake_quantize_inputs(model, quantizers)
    return model.eval()


def packed_header(path: str | Path) -> PackedHeader:
    """What a packed file says of itself, without reading its weights."""
    return _header(Path(path), container.read_body(Path(path)))


def _header(path: Path, body: dict[str, Plain]) -> PackedHeader:
    with invalid_file_errors(path):
        header = read(PackedHeader, body)
    return replace(header, parent=header.parent.rstrip())


def _read(path: Path) -> tuple[PackedHeader, dict[str, Tensor]]:
    """Data and tensors of a file. In the folder of a finished cell the file must be that of the record."""
    if (cell := cell_of_result(path)) is not None:
        cell.prove(cell.packed.name)
    body, tensors = container.read(path)
    return _header(path, body), tensors


def _checked(
    path: Path, header: PackedHeader, tensors: Tensors, most_bytes: int | None
) -> tuple[dict[str, dict[str, Tensor]], Shapes]:
    """Parts and shapes of the tensors of a file, which fit into the memory that they may take."""
    parts: dict[str, dict[str, Tensor]] = {}
    for entry, tensor in tensors.items():
        name, _, part = entry.partition(":")
        parts.setdefault(name, {})[part] = tensor
    shapes = checked_shapes(path, header.tensors, parts)
    check_size(path, bytes_of(shapes), most_bytes)
    return parts, shapes


def _decoded(path: Path, header: PackedHeader, parts: Mapping[str, Tensors]) -> dict[str, Tensor]:
    """Tensor name -> float tensor."""
    dense: Note = {"encoding": DENSE}
    weights: dict[str, Tensor] = {}
    for name, of_tensor in parts.items():
        with invalid_file_errors(path, f"tensors.{name}"):
            weights[name] = decoded(header.tensors.get(name, dense), of_tensor).dense()
    return weights


def _built(path: Path, header: PackedHeader, structure: Structure, shapes: Shapes, most_bytes: int | None) -> nn.Module:
    def check_shapes(empty: nn.Module) -> None:
        reshape(empty, structure)
        check_same_shapes(empty, shapes)

    return model_of_file(path, header.architecture, header.config, check_shapes, most_bytes)
