"""The weights of a model as a dictionary: tied tensors once, with what compression must know about each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from trainlarge.compression.layout.encoder import Encoder, find_encoder
from trainlarge.compression.layout.shapes import Structure
from trainlarge.compression.layout.skeleton import filled, reshape, skeleton_of
from trainlarge.compression.layout.tables import Tables, find_tables
from trainlarge.compression.model_tensors import entries_of, rounded_buffers
from trainlarge.compression.stored.container import DTYPES
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.mapped_tensors import TensorsOnDisk
from trainlarge.compression.stored.note import dtype_name
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.errors import UserError
from trainlarge.models.head_names import HeadNames, find_head

LARGEST = torch.finfo(torch.float32).max / 4
"""Magnitude of a weight: methods compute in float32, where a range takes twice as much, and its rounded ends more."""


@dataclass(frozen=True, eq=False)
class Origin:
    """Where the weights of a tensor stood in the checkpoint."""

    name: str
    """Name of the tensor there."""

    places: Mapping[int, Tensor] = field(default_factory=dict)
    """Dimension -> the indices there of what is left, where not everything is."""

    def cut(self, dimension: int, kept: Tensor, shape: tuple[int, ...]) -> Origin:
        """The origin after only the indices ``kept`` of a dimension of a tensor of this shape are left."""
        before = self.places.get(dimension, torch.arange(shape[dimension]))
        return replace(self, places={**self.places, dimension: before[kept]})

    def scattered(self, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The tensor in the shape of the checkpoint, 0 where nothing is left."""
        for dimension, places in self.places.items():
            wide = list(tensor.shape)
            wide[dimension] = shape[dimension]
            tensor = tensor.new_zeros(wide).index_copy_(dimension, places, tensor)
        return tensor


@dataclass(frozen=True, eq=False)
class Weights:
    """A snapshot of a checkpoint's weights on the CPU: changing the model afterwards does not change it.

    What changes shapes makes new weights of it, which know what is left of the checkpoint (``structure``).
    """

    tensors: Mapping[str, Tensor]
    """Every entry of the model's ``state_dict`` in its order; tied ones once, under their first name. Read only."""

    matrices: frozenset[str]
    """Names of the floating parameters with two dimensions or more: what methods act on."""

    embeddings: frozenset[str]
    """The matrices that belong to an ``nn.Embedding``, and so also a tied output matrix."""

    buffers: frozenset[str]
    """Names of the entries that are no parameters: kept as they are and not counted."""

    architecture: str
    """Class name of the model, such as ``ModernBertForMaskedLM``."""

    config: Mapping[str, object]
    """The checkpoint's Hugging Face configuration as JSON data; empty for a plain torch module."""

    skeleton: nn.Module
    """The checkpoint's modules without their weights."""

    encoder: Encoder | None
    """Where its layers, heads and neurons are now; None for a model without known layers."""

    tables: Tables | None
    """Where its vocabulary is now; None for a model without one."""

    head: HeadNames | None
    """What its prediction head is; None where that is not known."""

    is_head_whole: bool = False
    """Whether methods leave the head as it is."""

    dense_bytes: int = 0
    """Bytes of the parameters of the checkpoint in their own data types."""

    dense_bytes_without_embeddings: int = 0
    """The same outside the embeddings."""

    structure: Structure = field(default_factory=Structure)
    """What is left of the shapes of the checkpoint."""

    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Name of a tensor -> where it was in the checkpoint, for those that were cut, renamed or factorized."""

    @classmethod
    def of(
        cls, model: nn.Module, on_disk: bool = False, dtypes: Mapping[str, torch.dtype] = MappingProxyType({})
    ) -> Weights:
        """Snapshot of ``model``.

        Args:
            on_disk: keep it in a temporary file, which takes memory only for what is being read; where there is no
                room for one, in memory all the same.
            dtypes: name of a parameter -> its data type in the checkpoint, where the model holds it in a wider one.

        Raises UserError, which names the tensor, where a weight is NaN or infinite, or no number of a known data type.
        """
        live = entries_of(model)
        for name, tensor in live.items():
            _check_values(name, tensor)
        entries = {name: _narrowed(tensor, dtypes.get(name, tensor.dtype)) for name, tensor in live.items()}
        parameters = {name: tensor for name, tensor in entries.items() if isinstance(live[name], nn.Parameter)}
        matrices = {
            name
            for name, tensor in parameters.items()
            if tensor.ndim >= 2 and tensor.is_floating_point() and tensor.numel() > 0
        }
        config = getattr(model, "config", None)
        embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        embeddings = frozenset(name for name in matrices if id(live[name]) in embedded)
        sizes = {name: tensor.nbytes for name, tensor in parameters.items()}
        return cls(
            tensors=_copied_to_disk(entries) if on_disk else _copied(entries),
            matrices=frozenset(matrices),
            embeddings=embeddings,
            buffers=frozenset(entries.keys() - parameters.keys()),
            architecture=type(model).__name__,
            config=_config(config, parameters.values()) if isinstance(config, PreTrainedConfig) else {},
            skeleton=skeleton_of(model),
            encoder=find_encoder(model),
            tables=find_tables(model),
            head=find_head(model),
            dense_bytes=sum(sizes.values()),
            dense_bytes_without_embeddings=sum(sizes[name] for name in sizes if name not in embeddings),
        )

    @property
    def float_bits(self) -> int:
        """Bits of a weight that is not quantized: those of the widest matrix."""
        return max((8 * self.tensors[name].element_size() for name in self.matrices), default=32)

    def as_stored(self) -> dict[str, StoredTensor]:
        """The tensors as they are stored before any method is applied."""
        return {name: Dense(tensor) for name, tensor in self.tensors.items()}

    def model(self) -> nn.Module:
        """A new model of these shapes whose parameters are ``tensors`` themselves, in evaluation mode."""
        return filled(self.skeleton, self.structure, self.tensors).eval()

    def trainable(self) -> nn.Module:
        """A new model of these shapes with copies of ``tensors``, at least in float32, which may be trained."""
        copies = {name: tensor.to(_at_least_float32(tensor), copy=True) for name, tensor in self.tensors.items()}
        return filled(self.skeleton, self.structure, copies).requires_grad_(True)

    def taken_from(self, model: nn.Module) -> Weights:
        """The weights of a model of these shapes, rounded to the data types of ``tensors``."""
        entries = entries_of(model)
        return replace(
            self, tensors=_copied({name: tensor.to(self.tensors[name].dtype) for name, tensor in entries.items()})
        )

    def reshaped(self) -> nn.Module:
        """The modules of these shapes, without weights."""
        model = copy.deepcopy(self.skeleton)
        reshape(model, self.structure)
        return model

    def rounded_buffers(self) -> dict[str, torch.dtype]:
        """Buffers in half precision of a model of these shapes: see ``trainlarge.compression.model_tensors``."""
        rounded = rounded_buffers(self.skeleton)
        return rounded_buffers(self.reshaped()) if rounded and self.structure else rounded

    def names(self) -> list[str]:
        """Names of the tensors of a model of these shapes, tied ones once, in order."""
        return list(entries_of(self.reshaped()))

    def weight_names(self, kind: type[nn.Module]) -> dict[str, str]:
        """Name of each module of a class, tied ones too -> name of its weight in ``tensors``."""
        model = self.reshaped() if self.structure else self.skeleton
        names = {id(tensor): name for name, tensor in entries_of(model).items()}
        modules = model.named_modules()
        return {name: names[id(module.weight)] for name, module in modules if isinstance(module, kind)}

    def origin(self, name: str) -> Origin:
        """Where a tensor was in the checkpoint."""
        return self.origins.get(name, Origin(name))

    def expanded(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """``tensors``, which are named and shaped as these, in the names and shapes of the checkpoint.

        Factors are multiplied out, and what was removed is 0.
        """
        if not self.structure:
            return tensors
        entries = entries_of(self.skeleton)
        whole: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            module, _, factor = name.removesuffix(".weight").rpartition(".")
            origin = self.origin(name)
            if module in self.structure.ranks and factor == "up" and name.endswith(".weight"):
                other = f"{module}.down.weight"
                product = (tensor.double() @ tensors[other].double()).to(tensor.dtype)
                origin = replace(origin, places={**origin.places, **self.origin(other).places})
                whole[origin.name] = origin.scattered(product, tuple(entries[origin.name].shape))
            elif module not in self.structure.ranks or factor != "down":
                whole[origin.name] = origin.scattered(tensor, tuple(entries[origin.name].shape))
        return {
            name: whole[name] if name in whole else torch.zeros(entry.shape, dtype=entry.dtype)
            for name, entry in entries.items()
        }

    def renamed(self, new_name: Callable[[str], str | None]) -> Weights:
        """With other names, without the tensors whose new name is None."""
        names = {name: new for name in self.tensors if (new := new_name(name)) is not None}
        return replace(
            self,
            tensors={new: self.tensors[name] for name, new in names.items()},
            matrices=frozenset(names[name] for name in self.matrices if name in names),
            embeddings=frozenset(names[name] for name in self.embeddings if name in names),
            buffers=frozenset(names[name] for name in self.buffers if name in names),
            origins={new: self.origin(name) for name, new in names.items() if name != new or name in self.origins},
        )

    def with_whole_head(self) -> Weights:
        """The same, with a head that methods leave as it is.

        Raises UserError where it is not known what the head is.
        """
        if self.head is None:
            raise UserError("compress_head", False, f"true for {self.architecture}, whose head is not known")
        return replace(self, is_head_whole=True)

    def is_left_alone(self, name: str) -> bool:
        """Whether methods leave a module or a tensor as it is, because it is of the head.

        A matrix that is tied to an embedding is an embedding, whatever its name is.
        """
        is_of_head = self.is_head_whole and self.head is not None and self.head.holds(name)
        return is_of_head and name not in self.embeddings

    @property
    def all_matrices(self) -> list[str]:
        """Names of the matrices, in order."""
        return [name for name in self.tensors if name in self.matrices]

    def selected(self, embeddings: bool) -> list[str]:
        """Names of the matrices that a method acts on, in order, with or without the embedding matrices."""
        names = (name for name in self.all_matrices if embeddings or name not in self.embeddings)
        return [name for name in names if not self.is_left_alone(name)]


def _check_values(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        allowed = f"one of {', '.join(map(dtype_name, DTYPES))}; to convert a model: model.to(torch.bfloat16)"
        raise UserError(f"weights.{name}", dtype_name(tensor.dtype), allowed)
    if not torch.isfinite(tensor).all():
        raise UserError(f"weights.{name}", "NaN or infinite values", "finite numbers")
    largest = float(tensor.detach().abs().max()) if tensor.is_floating_point() and tensor.numel() else 0.0
    if largest > LARGEST:
        raise UserError(f"weights.{name}", f"values up to {largest:.3g}", f"at most {LARGEST:.3g} in magnitude")


def _narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in the data type of the checkpoint, from which it was widened: no bit is lost."""
    return tensor if tensor.dtype == dtype else tensor.detach().to(dtype)


def _config(config: PreTrainedConfig, parameters: Iterable[Tensor]) -> dict[str, object]:
    """The configuration, with the data type of the parameters where they have one."""
    given: dict[str, object] = config.to_diff_dict()
    dtypes = {tensor.dtype for tensor in parameters if tensor.is_floating_point()}
    return {**given, "dtype": dtype_name(dtypes.pop())} if "dtype" in given and len(dtypes) == 1 else given


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else tensor.dtype


def _copied(entries: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in entries.items()}


def _copied_to_disk(entries: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    try:
        return TensorsOnDisk(entries)
    except OSError:
        return _copied(entries)
