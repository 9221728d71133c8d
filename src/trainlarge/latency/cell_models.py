"""The models of cells, as their speed is measured: in fp32, with the shapes that compression left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainlarge.compression.checkpoint import Checkpoint, unchanged_checkpoint
from trainlarge.compression.layout.skeleton import SPECIAL_IDS
from trainlarge.compression.stored.packing import load_packed, packed_header
from trainlarge.config.data import DataConfig
from trainlarge.errors import UserError
from trainlarge.models.build import load_model
from trainlarge.models.fake_quantize import fake_quantize_inputs
from trainlarge.models.family import Head
from trainlarge.models.library import longest_row
from trainlarge.sweep.store import CellFolder, Study


@dataclass(frozen=True, eq=False)
class CellModels:
    """The model of a cell, and where it has other shapes that of its checkpoint."""

    model: PreTrainedModel
    checkpoint: PreTrainedModel | None
    data: DataConfig
    """The text that it was trained or evaluated on."""


def has_model(folder: CellFolder) -> bool:
    """Whether the cell is done and its weights are still there."""
    return folder.says_done() and (
        folder.packed.is_file() if folder.stage == "compress" else folder.checkpoint.is_dir()
    )


def check_has_model(folder: CellFolder) -> None:
    """Refuse a cell without a model.

    Raises:
        UserError: on ``cell``.
    """
    if not folder.says_done():
        raise UserError("cell", folder.id, f"a cell that is done; this one is {folder.status().state}")
    if not has_model(folder):
        allowed = f"a cell whose weights are still there; to make them again: {folder.redo_command}"
        raise UserError("cell", folder.id, allowed)


def models_of(folder: CellFolder, study: Study, device: str) -> CellModels:
    """Load the model of a cell.

    Inputs that a recipe rounds are not rounded here: in floats that takes longer, and no kernel does it so.

    Raises:
        UserError: a file is missing, damaged or not what it was.
    """
    if folder.stage == "train":
        folder.prove(f"{folder.checkpoint.name}/")
        config = folder.cell().as_train
        model = load_model(folder.checkpoint, head=Head(config.task.head))
        return CellModels(_ready(model, device), None, config.data)
    parent = unchanged_checkpoint(folder.cell().as_compress, study)
    model = cast(PreTrainedModel, load_packed(folder.packed))
    fake_quantize_inputs(model, {})
    checkpoint = _ready(_dense(parent), device) if packed_header(folder.packed).structure else None
    return CellModels(_ready(model, device), checkpoint, parent.data)


def _dense(parent: Checkpoint) -> PreTrainedModel:
    return load_model(parent.folder, head=Head(parent.task.head))


def _ready(model: PreTrainedModel, device: str) -> PreTrainedModel:
    if hasattr(model.config, "use_cache"):
        # Nothing follows the rows: what a decoder keeps for the next token would be extra work.
        model.config.use_cache = False
    module: nn.Module = model
    module.float().to(device).eval().requires_grad_(False)
    return model


def check_length(model: PreTrainedModel, length: int) -> None:
    """Refuse rows of more tokens than the model has positions for.

    Raises:
        UserError: on ``--length``.
    """
    longest = longest_row(model.config)
    if longest is not None and length > longest:
        raise UserError("--length", length, f"1 to {longest}, the positions of {type(model).__name__}")


def tokens_for(models: CellModels, batch: int, length: int) -> Tensor:
    """Token numbers [batch, length] that every runtime reads: drawn evenly, none of them special.

    A vocabulary that was cut has fewer; the checkpoint reads the same ones, of which it has all.
    """
    config = models.model.config
    special = {value for name in SPECIAL_IDS if isinstance(value := getattr(config, name, None), int)}
    usual = torch.tensor([token for token in range(config.vocab_size) if token not in special])
    drawn = torch.randint(len(usual), (batch, length), generator=torch.Generator().manual_seed(0))
    tokens = usual[drawn]
    end = getattr(config, "eos_token_id", None)
    if config.is_encoder_decoder and isinstance(end, int):
        # These look for the token that ends a text.
        tokens[:, -1] = end
    return tokens.to(models.model.device)
