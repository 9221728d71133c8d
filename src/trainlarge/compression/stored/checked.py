"""Checks of a packed file, made before memory for its tensors is allocated. Files may come from strangers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from trainlarge.compression.stored.note import BOTH, SUMMANDS, Note, encoding_in, keys_below, note_in, shape_in
from trainlarge.compression.stored.payload import Tensors
from trainlarge.config.group import Plain
from trainlarge.config.typed_json import JsonTypeError
from trainlarge.errors import UserError
from trainlarge.models.foreign import without_code

MOST_BYTES = 1 << 30
"""Bytes of float weights that any file may unpack to."""
MOST_EXPANSION = 4096
"""How many times its own size a larger file may unpack to. An encoding writes at least one byte per 255 weights, so a
file that ``save_packed`` wrote stays below 1,100 unless whole tensors are zero, or entropy-coded and all but alike."""

Shapes = dict[str, tuple[int, ...]]
"""Tensor name -> shape."""


@contextmanager
def invalid_file_errors(path: Path, key: str = "") -> Iterator[None]:
    """Report any error in this block as an invalid packed file.

    Args:
        path: the file.
        key: the part of its data that is read in this block; empty for all of it.

    Raises:
        UserError: on ``packed``, in place of any other error; it names the file and the key.
    """
    try:
        yield
    except JsonTypeError as error:
        wrong = JsonTypeError(f"{key}.{error.key}".lstrip("."), error.value, error.allowed)
        raise UserError("packed", path, f"a file as save_packed writes it ({wrong})") from error
    except UserError as error:
        if error.key == "packed":
            raise
        raise UserError("packed", path, f"a file that fits ({error})") from error
    # Crafted data make each library raise its own errors, also MemoryError, RecursionError and OverflowError.
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        where = f"{key}: " if key else ""
        raise UserError("packed", path, f"a file as save_packed writes it ({where}{cause})") from error


def checked_shapes(path: Path, notes: Mapping[str, Note], parts: Mapping[str, Tensors]) -> Shapes:
    """The shapes that the tensors of a file will have.

    Args:
        notes: tensor name -> how it is encoded; a tensor without a note is dense.
        parts: tensor name -> its parts.
    """
    shapes: Shapes = {}
    for name, of_tensor in parts.items():
        with invalid_file_errors(path, f"tensors.{name}"):
            shapes[name] = _shape(notes.get(name), of_tensor)
    return shapes


def check_size(path: Path, asked: int, most_bytes: int | None) -> None:
    """Refuse so many bytes of weights where they are more than a file of this size may unpack to.

    Raises:
        UserError: names what is allowed, which ``most_bytes`` raises.
    """
    file_bytes = path.stat().st_size
    allowed = max(MOST_BYTES, MOST_EXPANSION * file_bytes) if most_bytes is None else most_bytes
    if asked > allowed:
        text = f"at most {allowed} bytes of weights in a file of {file_bytes}, unless most_bytes says otherwise"
        raise UserError("packed", f"{path}, which asks for {asked}", text)


def model_of_file(
    path: Path,
    architecture: str,
    config: Mapping[str, Plain],
    check_shapes: Callable[[nn.Module], None],
    most_bytes: int | None,
) -> nn.Module:
    """A model from the configuration of a packed file, with weights that are still to be loaded.

    Nothing is downloaded, and no code is run that does not come with transformers.

    Args:
        architecture: name of its class in transformers.
        config: its Hugging Face configuration.
        check_shapes: called with the same model without memory, before the one with memory is made; raises UserError
            where its shapes are not those of the file.
    """
    with invalid_file_errors(path, "config"):
        model_class = _model_class(path, architecture)
        config_class: type[PreTrainedConfig] = model_class.config_class or PreTrainedConfig
        settings = without_code(config)
        # Initialisation draws random numbers that loading replaces: the caller's random state must not notice.
        with torch.random.fork_rng(devices=[]):
            with torch.device("meta"), no_init_weights():
                empty = model_class(config_class.from_dict(settings))
            # Tying is part of the initialisation that was left out.
            empty.tie_weights()
            check_size(path, sum(tensor.nbytes for tensor in (*empty.parameters(), *empty.buffers())), most_bytes)
            check_shapes(empty)
            return model_class(config_class.from_dict(settings))


def bytes_of(shapes: Shapes) -> int:
    """Bytes of float32 tensors of these shapes."""
    return 4 * sum(map(prod, shapes.values()))


def _shape(note: Note | None, parts: Tensors) -> tuple[int, ...]:
    if note is None:
        return tuple(parts[""].shape)
    if encoding_in(note) != BOTH:
        return shape_in(note)
    shapes = []
    for key in SUMMANDS:
        summand = note_in(note, key)
        with keys_below(key):
            if encoding_in(summand) == BOTH:
                raise ValueError(f"{BOTH} within {BOTH}")
            shapes.append(shape_in(summand))
    if shapes[0] != shapes[1]:
        raise ValueError(f"two shapes of one tensor: {shapes[0]}, {shapes[1]}")
    return shapes[0]


def _model_class(path: Path, name: str) -> type[PreTrainedModel]:
    import transformers

    if name not in _known_models():
        raise UserError("packed", path, f"a file of a transformers model; for {name} pass the model to load into")
    model_class: type[PreTrainedModel] = getattr(transformers, name)
    return model_class


@cache
def _known_models() -> frozenset[str]:
    """Names of the classes that transformers' own mappings know: models for a task, and bodies."""
    from transformers.models.auto import modeling_auto

    mappings = [value for name, value in vars(modeling_auto).items() if name.endswith("_MAPPING_NAMES")]
    names = [entry for mapping in mappings for entry in mapping.values()]
    single = (name for entry in names for name in ([entry] if isinstance(entry, str) else entry))
    return frozenset(name for name in single if isinstance(name, str) and not name.startswith("Auto"))
