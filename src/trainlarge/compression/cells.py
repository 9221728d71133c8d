"""Compress cells before they run: what a configuration means in full, and which cells share work. Nothing heavy."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from trainlarge.config.impl import check_impl
from trainlarge.config.recipe import SLOTS, Recipe
from trainlarge.errors import UserError
from trainlarge.models.flops import forward_flops
from trainlarge.sweep.cell import check_cell_id
from trainlarge.sweep.store import Study, studies_root
from trainlarge.training.steps import shape_of

NOTHING = {"name": "none"}


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """The full configuration of a compress cell; a sparsity of 0 and 32 bits become ``none``, so that they have one id.

    Raises:
        UserError: for a recipe that does not exist, or a checkpoint that is no finished train cell of the study.
    """
    check_impl(config["impl"])
    recover = dict(config["recover"] or NOTHING)
    if recover != NOTHING:
        raise UserError("recover", recover["name"], NOTHING["name"])
    recipe = recipe_of(config)
    _parent(str(studies_root()), config["study"], str(config["checkpoint"]))
    rest = {key: value for key, value in config.items() if key not in (*SLOTS, "order")}
    return {**rest, **recipe.to_config(), "recover": recover}


def shared_work(config: dict[str, Any]) -> Any:
    """The checkpoint: all its recipes share the loaded model, the evaluation set and the pruned weights."""
    return config["checkpoint"]


def cost(config: dict[str, Any]) -> float:
    """FLOPs of one evaluation of the checkpoint."""
    parent = _parent(str(studies_root()), config["study"], config["checkpoint"])
    length, rows = parent["data"]["sequence_length"], parent["task"]["evaluation_rows"]
    return float(rows * forward_flops(shape_of(parent), length, predictions_per_row=1))


def recipe_of(config: dict[str, Any]) -> Recipe:
    """The recipe of a configuration."""
    return Recipe.from_config(**{slot: config.get(slot) for slot in SLOTS}, order=config.get("order"))


@lru_cache(maxsize=4096)
def _parent(root: str, study_name: str, checkpoint: str) -> dict[str, Any]:
    """Configuration of the parent train cell. Kept only when it is there: an error is looked at again the next time."""
    study = Study.named(study_name)
    allowed = f"the id of a finished train cell of study {study_name} in {root}, or 'every' in a sweep"
    try:
        folder = study.folder("train", check_cell_id(checkpoint))
    except UserError:
        raise UserError("checkpoint", checkpoint, allowed) from None
    if not folder.is_done():
        raise UserError("checkpoint", checkpoint, allowed)
    return folder.cell().config
