"""A model in a Hugging Face folder: which files its loss depends on, and what its configuration allows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError, safe_open

from trainlarge.config.typed_json import read
from trainlarge.errors import UserError
from trainlarge.models.foreign import counts_from_padding
from trainlarge.sweep.digest import file_digest
from trainlarge.sweep.files import exact_json, read_bytes

DIGEST_LENGTH = 16
TOKENIZER = "tokenizer.json"
TOKENIZER_EXTRAS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""Files next to ``tokenizer.json`` that say, where they are there, which tokens are special."""
WEIGHTS = "model.safetensors"
FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
KNOWN_DTYPES = (*FLOAT_DTYPES, "I64", "I32", "I16", "I8", "U8", "BOOL")
"""Data types of weights, by their names in safetensors. Those of 8-bit floats come with scales of their own."""
INDEX_SUFFIX = ".safetensors.index.json"


@dataclass(frozen=True)
class _ModelConfig:
    """What is read of the ``config.json`` of a Hugging Face folder."""

    model_type: str | None = None
    pad_token_id: int | None = None
    max_position_embeddings: int | None = None
    vocab_size: int | None = None
    transformers_weights: str | None = None
    """File of the weights, where it is not called as usual."""


@dataclass(frozen=True)
class _WeightIndex:
    """The index of weights that are divided between files."""

    weight_map: dict[str, str]
    """Tensor -> file."""


def folder_digest(folder: Path) -> str:
    """First 16 hex digits of SHA-256 over all files of a Hugging Face folder that its loss depends on, by name.

    Those are the files that ``load_model`` and ``model_tokenizer`` read: configuration, weights, tokenizer.

    Raises:
        UserError: when one of them is missing.
    """
    check_whole(folder)
    tokenizer, *extras = tokenizer_files(folder)
    files = (folder / "config.json", tokenizer, *weight_files(folder), *extras)
    contents = [[path.relative_to(folder).as_posix(), file_digest(path)] for path in files]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:DIGEST_LENGTH]


def check_whole(folder: Path) -> None:
    """Refuse a folder without configuration or tokenizer, and one of an adapter.

    Raises:
        UserError: on ``checkpoint``.
    """
    missing = [name for name in ("config.json", TOKENIZER) if not (folder / name).is_file()]
    if missing:
        raise _not_whole(folder, f"{', '.join(missing)} missing")
    if (folder / "adapter_config.json").exists():
        raise _not_whole(folder, "no adapter_config.json: merge the adapter into the weights first")


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of the tokenizer of a Hugging Face folder, ``tokenizer.json`` first."""
    extras = [path for path in (folder / name for name in TOKENIZER_EXTRAS) if path.is_file()]
    return [folder / TOKENIZER, *extras, *sorted(folder.glob("tokenizer.*.json"))]


def weight_files(folder: Path) -> list[Path]:
    """The files from which ``load_model`` reads the weights of a Hugging Face folder, an index before its shards.

    Raises:
        UserError: when one is missing, is no safetensors file, or is outside the folder.
    """
    # By the rules of ``from_pretrained(..., use_safetensors=True)``.
    usual = next((name for name in (WEIGHTS, f"{WEIGHTS}.index.json") if (folder / name).is_file()), WEIGHTS)
    first = _weight_file(folder, _config(folder).transformers_weights or usual)
    if not first.name.endswith(INDEX_SUFFIX):
        return [first]
    try:
        index = read(_WeightIndex, exact_json(read_bytes(first)))
    except ValueError as error:
        raise _not_whole(folder, f"{first.name} that can be read ({error})") from error
    # The shards first: digests were made before the index was part of them.
    return [*(_weight_file(folder, name) for name in sorted(set(index.weight_map.values()))), first]


def _weight_file(folder: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name.endswith((".safetensors", INDEX_SUFFIX)):
        raise _not_whole(folder, f"weights in *.safetensors inside of it, and not in {name}")
    if not (folder / path).is_file():
        raise _not_whole(folder, f"{path} missing")
    return folder / path


def _not_whole(folder: Path, what: str) -> UserError:
    return UserError(
        "checkpoint", folder, f"a Hugging Face folder with config.json, model.safetensors and {TOKENIZER} ({what})"
    )


@dataclass(frozen=True)
class StoredWeight:
    """A tensor as the header of a safetensors file describes it."""

    dtype: str
    """Data type by the name of the format, such as ``BF16``."""
    shape: tuple[int, ...]
    """Its shape."""


def stored_weights(folder: Path) -> Mapping[str, StoredWeight]:
    """Name -> tensor, of all weights of a Hugging Face folder; only headers are read.

    Raises:
        UserError: where a file cannot be read, or holds weights of a data type that is not known here.
    """
    weights: dict[str, StoredWeight] = {}
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            stat = path.stat()
            weights |= _stored_in(folder, path, stat.st_size, stat.st_mtime_ns)
    return weights


def weight_count(folder: Path) -> int:
    """Numbers in the weights of a Hugging Face folder, whatever their data types."""
    return sum(prod(weight.shape) for weight in stored_weights(folder).values())


@lru_cache(maxsize=64)
def _stored_in(folder: Path, path: Path, _size: int, _changed: int) -> Mapping[str, StoredWeight]:
    weights: dict[str, StoredWeight] = {}
    try:
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118
                entry = file.get_slice(name)
                weights[name] = StoredWeight(entry.get_dtype(), tuple(entry.get_shape()))
    except (SafetensorError, OSError) as error:
        raise UserError("checkpoint", path, f"a whole file of weights ({error})") from error
    for name, weight in weights.items():
        if weight.dtype not in KNOWN_DTYPES:
            allowed = f"a folder of weights in {', '.join(KNOWN_DTYPES)}, unlike {name} in {weight.dtype}"
            raise UserError("checkpoint", folder, allowed)
    return weights


def architecture_of(folder: Path) -> tuple[str, int | None]:
    """The architecture of a Hugging Face folder, and the entries of its vocabulary; None where that is not said."""
    config = _config(folder)
    return config.model_type or folder.name, config.vocab_size


def check_positions(folder: Path, sequence_length: int) -> None:
    """Refuse rows of more tokens than the model has positions for.

    Raises:
        UserError: on ``data.sequence_length``.
    """
    config = _config(folder)
    if config.max_position_embeddings is None:
        return
    first = (config.pad_token_id or 0) + 1 if counts_from_padding(config.model_type) else 0
    positions = config.max_position_embeddings - first
    if not 1 <= sequence_length <= positions:
        allowed = f"1 to {positions}, the positions that the model of {folder} knows"
        raise UserError("data.sequence_length", sequence_length, allowed)


def _config(folder: Path) -> _ModelConfig:
    try:
        return read(_ModelConfig, exact_json(read_bytes(folder / "config.json")))
    except ValueError as error:
        raise _not_whole(folder, f"config.json that can be read ({error})") from error
