"""Compress cells before they run: what a configuration means in full, and which cells share work. Nothing heavy."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from trainlarge.compression.checkpoint import check_positions, find_checkpoint, weight_bytes
from trainlarge.config.impl import check_impl
from trainlarge.config.recipe import SLOTS, Recipe
from trainlarge.config.schema import DataConfig
from trainlarge.config.task import MaskedLMConfig, task_config
from trainlarge.data.fingerprint import resolved_data
from trainlarge.errors import UserError
from trainlarge.models.flops import forward_flops
from trainlarge.models.shape import shape_of
from trainlarge.sweep.cell import Cell

NOTHING = {"name": "none"}
TEXT = ("data", "task")
"""Groups that say what a folder is evaluated on; a train cell brings its own."""
DIGEST = "checkpoint_digest"
FLOAT_BYTES = 4


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
    rest = {key: value for key, value in config.items() if key not in (*SLOTS, "order", *TEXT, DIGEST)}
    return {**rest, **recipe.to_config(), **_source(config), "recover": recover}


def shared_work(config: dict[str, Any]) -> Any:
    """The checkpoint and, for a folder, its content and text: they are what recipes share in one job (the loaded model,
    the evaluation set, the calibration, the pruned weights)."""
    return {key: config.get(key) for key in ("checkpoint", DIGEST, *TEXT)}


def to_prepare(cells: list[Cell]) -> list[Cell]:
    """None: compress jobs share nothing that is better done before them."""
    return []


def cost(config: dict[str, Any]) -> float:
    """FLOPs of one evaluation of the checkpoint; for a folder roughly, from the size of its weights."""
    checkpoint = find_checkpoint(config)
    length, rows = checkpoint.config["data"]["sequence_length"], checkpoint.config["task"]["evaluation_rows"]
    if not checkpoint.is_cell:
        return float(rows * length * 2 * weight_bytes(checkpoint.folder) / FLOAT_BYTES)
    return float(rows * forward_flops(shape_of(checkpoint.config), length, predictions_per_row=1))


def recipe_of(config: dict[str, Any]) -> Recipe:
    """The recipe of a configuration."""
    return Recipe.from_config(**{slot: config.get(slot) for slot in SLOTS}, order=config.get("order"))


def _source(config: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint, and of a folder the digest that stands for it and the text that it is evaluated on.

    Cells of a train cell's checkpoint have no groups of text: that of the train cell is used.
    """
    checkpoint = find_checkpoint(config)
    if checkpoint.is_cell:
        _refuse_text(config)
        return {"checkpoint": checkpoint.id}
    task_config(config["task"]).check()
    check_positions(checkpoint.folder, config["data"]["sequence_length"])
    text = {"data": resolved_data(config["data"]), "task": config["task"]}
    return {"checkpoint": str(checkpoint.folder), DIGEST: checkpoint.id, **text}


def _refuse_text(config: dict[str, Any]) -> None:
    defaults = {"data": asdict(DataConfig(name="stdlib")), "task": asdict(MaskedLMConfig())}
    for group in TEXT:
        for key, value in (config.get(group) or {}).items():
            if value != defaults[group][key]:
                allowed = "nothing beside the id of a train cell: its own text evaluates it"
                raise UserError(f"{group}.{key}", value, allowed)
