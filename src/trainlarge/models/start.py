"""Models that start from a checkpoint: its configuration, and the weights that are taken from it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PretrainedConfig, PreTrainedModel

from trainlarge.errors import UserError
from trainlarge.models.build import LoadReport, checked_config, load_for_head
from trainlarge.models.counts import parameter_counts
from trainlarge.models.family import Head
from trainlarge.models.head_names import HeadNames
from trainlarge.models.shape import Shape


def config_of_start(folder: Path, shape: Shape, head: Head, pad_id: int) -> PretrainedConfig:
    """The configuration of a model that starts from a checkpoint: the checkpoint's own, with another head if need be.

    Rotary bases, attention windows and the like stay as they were trained.

    Args:
        folder: Hugging Face folder of the checkpoint.
        shape: its shape.
        head: what the new model predicts.
        pad_id: id of the padding token, where the configuration says none.

    Raises:
        UserError: on ``checkpoint``, when the folder has no model with that head.
    """
    config = checked_config(folder, head)
    usual = shape.family.config(shape, head)
    if hasattr(usual, "classifier_dropout"):
        config.classifier_dropout = usual.classifier_dropout
    if config.pad_token_id is None:
        config.pad_token_id = pad_id
    return config


def pooling_of_start(folder: Path, shape: Shape, head: Head) -> str | None:
    """How the configuration of a checkpoint pools rows, as ``task.pooling`` calls it; None where there is no choice.

    Raises:
        UserError: on ``checkpoint``, when the folder has no model with that head.
    """
    names = {stored: name for name, stored in shape.family.head(head).poolings.items()}
    return names.get(checked_config(folder, head).classifier_pooling) if names else None


def take_weights(model: PreTrainedModel, folder: Path, shape: Shape, head: Head) -> None:
    """Put the weights of a checkpoint in the place of the initial ones.

    All tensors but those of the head must be there. Those of the head are taken where the checkpoint has one of the
    same name and shape: the whole head where it is the same, the dense layer before the output where both have it.

    Args:
        model: with initial weights, by ``config_of_start``.
        folder: Hugging Face folder of the checkpoint.
        shape: shape of both.
        head: what ``model`` predicts.

    Raises:
        UserError: on ``checkpoint``, when a tensor is missing, has another shape or has no place in the model.
    """
    expected = parameter_counts(shape, head).total
    if (found := sum(parameter.numel() for parameter in model.parameters())) != expected:
        allowed = f"a model of {expected:,} parameters, as arch.name={shape.name} counts them, and not {found:,}"
        raise UserError("checkpoint", folder, allowed)
    donor, report = load_for_head(folder, head, shape.labels)
    _check_body(report, folder, HeadNames(model.base_model_prefix))
    new = report.missing | report.mismatched
    target = model.state_dict()
    with torch.no_grad():
        for name, tensor in donor.state_dict().items():
            if name not in new:
                target[name].copy_(tensor)


def _check_body(report: LoadReport, folder: Path, head: HeadNames) -> None:
    """Refuse differences outside of the head."""
    problems = {
        "missing": report.missing,
        "of another shape": report.mismatched,
        "not expected": report.unexpected,
    }
    for what, names in problems.items():
        body = sorted(name for name in names if not head.holds(name))
        if body:
            allowed = f"a checkpoint with the weights of the same architecture ({what}: {', '.join(body[:3])})"
            raise UserError("checkpoint", folder, allowed)
