"""Where the checkpoint of a compress cell comes from: a train cell of the study, or any Hugging Face folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainlarge.data.digest import file_digest
from trainlarge.errors import UserError
from trainlarge.sweep.cell import ID_PATTERN
from trainlarge.sweep.store import Study

DIGEST_LENGTH = 16
TOKENIZER = "tokenizer.json"
POSITIONS_FROM_PADDING = frozenset({
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
})  # fmt: skip
"""Architectures (``model_type``) that count positions from the padding token on."""


@dataclass(frozen=True)
class Checkpoint:
    """A model to compress, and the text that it is evaluated on."""

    id: str
    """Id of the train cell, or digest of the folder."""

    folder: Path
    """Hugging Face folder of the model."""

    config: dict[str, Any]
    """A configuration with the groups ``data`` and ``task``: the train cell's, or the compress cell's own."""

    is_cell: bool
    """Whether it comes from a train cell."""


def find_checkpoint(config: dict[str, Any], study: Study | None = None) -> Checkpoint:
    """The checkpoint of a compress cell's configuration.

    Args:
        study: where its train cell lies; None: in the study that the configuration names.

    Raises:
        UserError: when it is neither a finished train cell of the study nor a whole Hugging Face folder.
    """
    text = str(config["checkpoint"])
    if is_folder(text):
        folder = Path(text).expanduser().resolve()
        return Checkpoint(folder_digest(folder), folder, config, is_cell=False)
    study = study or Study.named(config["study"])
    return Checkpoint(text, *_train_cell(study, text), is_cell=True)


def unchanged_checkpoint(config: dict[str, Any], study: Study) -> Checkpoint:
    """The checkpoint of a frozen configuration of ``study``.

    Raises:
        UserError: when a folder holds something else than when the cell was frozen.
    """
    checkpoint = find_checkpoint(config, study)
    frozen = config.get("checkpoint_digest")
    if frozen and checkpoint.id != frozen:
        allowed = f"the folder as it was when the cell was frozen, of digest {frozen} and not {checkpoint.id}"
        raise UserError("checkpoint", checkpoint.folder, allowed)
    return checkpoint


def is_folder(text: str) -> bool:
    """Whether ``checkpoint`` names a folder: with a slash, or one that is there, unless it looks like a cell id."""
    return not ID_PATTERN.fullmatch(text) and ("/" in text or Path(text).is_dir())


def folder_digest(folder: Path) -> str:
    """First 16 hex digits of SHA-256 over configuration, weights and tokenizer of a Hugging Face folder.

    Raises:
        UserError: when one of them is missing.
    """
    weights = sorted(folder.glob("*.safetensors"))
    needed = {"config.json": folder / "config.json", TOKENIZER: folder / TOKENIZER}
    missing = [name for name, path in needed.items() if not path.is_file()] + ([] if weights else ["*.safetensors"])
    if missing:
        allowed = (
            f"a Hugging Face folder with config.json, *.safetensors and {TOKENIZER} ({', '.join(missing)} missing)"
        )
        raise UserError("checkpoint", folder, allowed)
    contents = [[path.name, file_digest(path)] for path in (*needed.values(), *weights)]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:DIGEST_LENGTH]


def weight_bytes(folder: Path) -> int:
    """Bytes of the weights of a Hugging Face folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def check_positions(folder: Path, sequence_length: int) -> None:
    """Refuse rows of more tokens than the model has positions for.

    Raises:
        UserError: on ``data.sequence_length``.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    first = (config.get("pad_token_id") or 0) + 1 if config.get("model_type") in POSITIONS_FROM_PADDING else 0
    positions = config.get("max_position_embeddings", sequence_length + first) - first
    if not 1 <= sequence_length <= positions:
        allowed = f"1 to {positions}, the positions that the model of {folder} knows"
        raise UserError("data.sequence_length", sequence_length, allowed)


@lru_cache(maxsize=4096)
def _train_cell(study: Study, checkpoint: str) -> tuple[Path, dict[str, Any]]:
    """Model and configuration of a train cell. Kept only when it is there: an error is looked at again."""
    where = f"study {study.name} in {study.path.parent}"
    allowed = f"the id of a finished train cell of {where}, 'every' in a sweep, or a Hugging Face folder"
    if not ID_PATTERN.fullmatch(checkpoint) or not (folder := study.folder("train", checkpoint)).is_done():
        raise UserError("checkpoint", checkpoint, allowed)
    return folder.checkpoint, folder.cell().config
