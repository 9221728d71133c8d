"""Compress cells before they run: what a configuration means in full, and which cells share work. Nothing heavy."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from trainlarge.config.impl import check_impl
from trainlarge.config.recipe import Recipe
from trainlarge.errors import UserError
from trainlarge.models.flops import forward_flops
from trainlarge.sweep.cell import check_cell_id
from trainlarge.sweep.store import Study, studies_root
from trainlarge.training.steps import shape_of

NOTHING = {"name": "none"}
UNQUANTIZED_BITS = 32
"""What Li et al. 2020 write for weights that are not quantized."""


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """The full configuration of a compress cell; a sparsity of 0 and 32 bits become ``none``, so that they have one id.

    Raises:
        UserError: for a recipe that does not exist, or a checkpoint that is no finished train cell of the study.
    """
    check_impl(config["impl"])
    prune, quantize, recover = (dict(config[group] or NOTHING) for group in ("prune", "quantize", "recover"))
    if prune.get("sparsity") == 0:
        prune = dict(NOTHING)
    if quantize.get("bits") == UNQUANTIZED_BITS:
        quantize = dict(NOTHING)
    if recover != NOTHING:
        raise UserError("recover", recover["name"], NOTHING["name"])
    recipe = Recipe.from_config(prune, quantize)
    _parent(str(studies_root()), config["study"], str(config["checkpoint"]))
    return {**config, "prune": _group(recipe.prune), "quantize": _group(recipe.quantize), "recover": recover}


def shared_work(config: dict[str, Any]) -> Any:
    """The checkpoint: all its recipes share the loaded model, the evaluation set and the pruned weights."""
    return config["checkpoint"]


def cost(config: dict[str, Any]) -> float:
    """FLOPs of one evaluation of the checkpoint."""
    parent = _parent(str(studies_root()), config["study"], config["checkpoint"])
    length, rows = parent["data"]["sequence_length"], parent["task"]["evaluation_rows"]
    return float(rows * forward_flops(shape_of(parent), length, predictions_per_row=1))


def recipe_of(config: dict[str, Any]) -> Recipe:
    """The recipe of a resolved configuration."""
    return Recipe.from_config(config["prune"], config["quantize"])


def _group(method: Any) -> dict[str, Any]:
    return {key: value for key, value in method.to_json().items() if key != "version"} if method else dict(NOTHING)


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
