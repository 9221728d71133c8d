"""Where the checkpoint of a compress cell comes from: a train cell of the study, or any Hugging Face folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from trainlarge.config.data import DataConfig
from trainlarge.config.schema import CompressConfig, TrainConfig
from trainlarge.config.task import TaskConfig
from trainlarge.config.typed_json import read
from trainlarge.errors import UserError
from trainlarge.models.foreign import counts_from_padding
from trainlarge.sweep.cell import ID_PATTERN
from trainlarge.sweep.digest import file_digest
from trainlarge.sweep.store import Study

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
INDEX_SUFFIX = ".safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """A model to compress, and the text that it is evaluated on."""

    id: str
    """Id of the train cell, or digest of the folder."""

    folder: Path
    """Hugging Face folder of the model."""

    data: DataConfig
    """The text that it is evaluated on: the train cell's, or for a folder the compress cell's own."""

    task: TaskConfig
    """How it is evaluated."""

    trained: TrainConfig | None = None
    """The configuration of the train cell that it comes from; None for a folder."""

    @property
    def as_train(self) -> TrainConfig:
        """The configuration of its train cell. Raises ValueError for a folder."""
        if self.trained is None:
            raise ValueError(f"{self.folder} is no checkpoint of a train cell")
        return self.trained

    @property
    def is_cell(self) -> bool:
        """Whether it comes from a train cell."""
        return self.trained is not None


@dataclass(frozen=True)
class _ModelConfig:
    """What is read of the ``config.json`` of a Hugging Face folder."""

    model_type: str | None = None
    pad_token_id: int | None = None
    max_position_embeddings: int | None = None
    transformers_weights: str | None = None
    """File of the weights, where it is not called as usual."""


@dataclass(frozen=True)
class _WeightIndex:
    """The index of weights that are divided between files."""

    weight_map: dict[str, str]
    """Tensor -> file."""


def find_checkpoint(config: CompressConfig, study: Study | None = None) -> Checkpoint:
    """The checkpoint of a compress cell's configuration.

    Args:
        study: the study of its train cell; None: the one that the configuration names.

    Raises:
        UserError: when it is neither a finished train cell of the study nor a whole Hugging Face folder.
    """
    text = config.checkpoint
    if is_folder(text):
        folder = Path(text).expanduser().resolve()
        if config.data is None or config.task is None:
            raise UserError("data", "null", "the text that a Hugging Face folder is evaluated on, such as data=stdlib")
        return Checkpoint(folder_digest(folder), folder, config.data, config.task)
    folder, trained = _train_cell(study or Study.named(config.study), text)
    return Checkpoint(text, folder, trained.data, trained.task, trained)


def unchanged_checkpoint(config: CompressConfig, study: Study) -> Checkpoint:
    """The checkpoint of a frozen configuration of ``study``, proven to be what it was.

    Raises:
        DamagedFileError: when a file of the train cell's checkpoint is not as it was written.
        UserError: when a folder holds something else than when the cell was frozen.
    """
    checkpoint = find_checkpoint(config, study)
    if checkpoint.is_cell:
        study.folder("train", checkpoint.id).prove(f"{checkpoint.folder.name}/")
    frozen = config.checkpoint_digest
    if frozen and checkpoint.id != frozen:
        allowed = f"the folder as it was when the cell was frozen, of digest {frozen} and not {checkpoint.id}"
        raise UserError("checkpoint", checkpoint.folder, allowed)
    return checkpoint


def is_folder(text: str) -> bool:
    """Whether ``checkpoint`` names a folder: with a slash, or one that is there, unless it looks like a cell id."""
    return not ID_PATTERN.fullmatch(text) and ("/" in text or Path(text).is_dir())


def folder_digest(folder: Path) -> str:
    """First 16 hex digits of SHA-256 over all files of a Hugging Face folder that its loss depends on, by name.

    Those are the files that ``load_model`` and ``model_tokenizer`` read: configuration, weights, tokenizer.

    Raises:
        UserError: when one of them is missing.
    """
    needed = [folder / "config.json", folder / TOKENIZER]
    missing = [path.name for path in needed if not path.is_file()]
    if missing:
        raise _not_whole(folder, f"{', '.join(missing)} missing")
    if (folder / "adapter_config.json").exists():
        raise _not_whole(folder, "no adapter_config.json: merge the adapter into the weights first")
    extras = [path for path in (folder / name for name in TOKENIZER_EXTRAS) if path.is_file()]
    extras += sorted(folder.glob("tokenizer.*.json"))
    files = (*needed, *weight_files(folder), *extras)
    contents = [[path.relative_to(folder).as_posix(), file_digest(path)] for path in files]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:DIGEST_LENGTH]


def weight_files(folder: Path) -> list[Path]:
    """The files from which ``load_model`` reads the weights of a Hugging Face folder, an index before its shards.

    Raises:
        UserError: when one is missing, is no safetensors file, or is outside the folder.
    """
    first = _first_weight_file(folder)
    if not first.name.endswith(INDEX_SUFFIX):
        return [first]
    try:
        index = read(_WeightIndex, json.loads(first.read_text(encoding="utf-8")))
    except ValueError as error:
        raise _not_whole(folder, f"{first.name} that can be read ({error})") from error
    # The shards first: digests were made before the index was part of them.
    return [*(_weight_file(folder, name) for name in sorted(set(index.weight_map.values()))), first]


def _first_weight_file(folder: Path) -> Path:
    """By the rules of ``from_pretrained(..., use_safetensors=True)``."""
    if name := _config(folder).transformers_weights:
        return _weight_file(folder, name)
    names = (WEIGHTS, f"{WEIGHTS}.index.json")
    return _weight_file(folder, next((name for name in names if (folder / name).is_file()), WEIGHTS))


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


def weight_bytes(folder: Path) -> int:
    """Bytes of the weights of a Hugging Face folder."""
    return sum(path.stat().st_size for path in weight_files(folder))


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
        return read(_ModelConfig, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except ValueError as error:
        raise _not_whole(folder, f"config.json that can be read ({error})") from error


@lru_cache(maxsize=4096)
def _train_cell(study: Study, checkpoint: str) -> tuple[Path, TrainConfig]:
    """Model and configuration of a train cell. Kept only when it is there: an error is looked at again."""
    where = f"study {study.name} in {study.path.parent}"
    allowed = f"the id of a finished train cell of {where}, 'every' in a sweep, or a Hugging Face folder"
    folder = study.folder("train", checkpoint) if ID_PATTERN.fullmatch(checkpoint) else None
    if folder is None or not folder.is_done():
        error = None if folder is None else folder.status().error
        raise UserError("checkpoint", checkpoint, f"{allowed} (it ended with: {error})" if error else allowed)
    return folder.checkpoint, folder.cell().as_train
