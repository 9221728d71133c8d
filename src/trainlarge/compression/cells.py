"""Compress cells before they run: what a configuration means in full, and which cells share work. Nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from trainlarge.compression.checkpoint import check_positions, find_checkpoint, weight_bytes
from trainlarge.config.impl import check_impl
from trainlarge.config.method import Part
from trainlarge.config.recipe import SLOTS, Recipe
from trainlarge.config.recover import Recovery
from trainlarge.config.schema import DataConfig
from trainlarge.config.task import MaskedLMConfig, task_config
from trainlarge.data.fingerprint import resolved_data
from trainlarge.errors import UserError
from trainlarge.models.flops import forward_flops
from trainlarge.models.shape import head_of, shape_of
from trainlarge.sweep.cell import ID_LENGTH, Cell, canonical_json
from trainlarge.sweep.store import Study
from trainlarge.tasks.step import step_of

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
    recipe = recipe_of(config)
    _check_recovery(config, recipe)
    groups = [slot for slot in SLOTS if slot != "recover"]
    rest = {key: value for key, value in config.items() if key not in (*groups, "order", *TEXT, DIGEST)}
    return {**rest, **recipe.to_config(), **_source(config)}


def shared_work(config: dict[str, Any]) -> Any:
    """The checkpoint and, for a folder, its content and text: they are what recipes share in one job (the loaded model,
    the evaluation set, the calibration, the pruned weights)."""
    return {key: config.get(key) for key in ("checkpoint", DIGEST, *TEXT)}


def to_prepare(cells: list[Cell]) -> list[Cell]:
    """None: compress jobs share nothing that is better done before them."""
    return []


def cost(config: dict[str, Any]) -> float:
    """FLOPs of one evaluation of the checkpoint and of recovery; for a folder roughly, from the size of its weights."""
    checkpoint = find_checkpoint(config)
    length, rows = checkpoint.config["data"]["sequence_length"], checkpoint.config["task"]["evaluation_rows"]
    if not checkpoint.is_cell:
        return float(rows * length * 2 * weight_bytes(checkpoint.folder) / FLOAT_BYTES)
    evaluation = float(rows * forward_flops(shape_of(checkpoint.config), length, 1, head_of(checkpoint.config)))
    return evaluation + recovery_steps(config) * step_of(checkpoint.config).flops


def recipe_of(config: dict[str, Any]) -> Recipe:
    """The recipe of a configuration."""
    return Recipe.from_config(**{slot: config.get(slot) for slot in SLOTS}, order=config.get("order"))


def recovery_id(checkpoint_id: str, done: Sequence[Part]) -> str:
    """Names the training at the end of some steps of a recipe, and the folder of its states.

    First 12 hex digits of SHA-256 over what the result depends on: recipes that begin with the same steps share it.
    """
    steps = [{"slot": part.slot, **part.to_json()} for part in done]
    identity = canonical_json({"checkpoint": checkpoint_id, "steps": steps})
    return hashlib.sha256(identity.encode()).hexdigest()[:ID_LENGTH]


def recovery_of(config: dict[str, Any]) -> str | None:
    """The id of the training in the recipe of a frozen configuration; None where nothing trains."""
    steps = recipe_of(config).steps
    trained = [index for index, part in enumerate(steps) if isinstance(part, Recovery)]
    return recovery_id(config["checkpoint"], steps[: trained[0] + 1]) if trained else None


def recovery_steps(config: dict[str, Any]) -> int:
    """Optimizer steps of the training in a recipe; 0 where nothing trains."""
    recover = recipe_of(config).recover
    return recover.steps(_parent_record(config)["step"]) if isinstance(recover, Recovery) else 0


def _parent_record(config: dict[str, Any]) -> dict[str, Any]:
    return Study.named(config["study"]).folder("train", config["checkpoint"]).record()


def _check_recovery(config: dict[str, Any], recipe: Recipe) -> None:
    """Refuse recovery where there is nothing to train on, or nothing to recover."""
    if recipe.recover is None:
        return
    checkpoint = find_checkpoint(config)
    if not checkpoint.is_cell:
        allowed = f"none for a Hugging Face folder ({checkpoint.folder}): only a train cell has data to train on"
        raise UserError("recover", recipe.recover.name, allowed)
    if _parent_record(config).get("diverged"):
        raise UserError("recover", recipe.recover.name, f"none: train cell {checkpoint.id} diverged")


def _source(config: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint, and of a folder the digest that stands for it and the text that it is evaluated on.

    Cells of a train cell's checkpoint have no groups of text: that of the train cell is used.
    """
    checkpoint = find_checkpoint(config)
    if checkpoint.is_cell:
        _refuse_text(config)
        return {"checkpoint": checkpoint.id}
    task = task_config(config["task"])
    task.check()
    task.check_data(config["data"])
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
