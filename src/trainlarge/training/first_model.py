"""The model that a train cell begins with."""

from __future__ import annotations

from transformers import PreTrainedModel

from trainlarge.config.schema import TrainConfig
from trainlarge.models.build import build_model
from trainlarge.models.shape import head_of, shape_of
from trainlarge.models.start import config_of_start, take_weights
from trainlarge.training.start import Start
from trainlarge.training.width import scale_initial_weights


def first_model(config: TrainConfig, start: Start | None, pad_id: int, attention: str) -> PreTrainedModel:
    """A model with the first weights of a train cell: initial ones, but for those that are taken from a checkpoint.

    Args:
        config: of the cell; its seed is that of the initial weights.
        start: the checkpoint; None for initial weights.
        pad_id: id of the padding token.
        attention: the library's implementation.
    """
    shape, head, model_config = shape_of(config), head_of(config), None
    if start:
        model_config = config_of_start(start.folder, shape, head, pad_id)
    if (pooling := config.task.row_pooling) is not None:
        model_config = model_config or shape.family.config(shape, head)
        model_config.classifier_pooling = shape.family.head(head).poolings[pooling]
    std, seed = config.arch.initial_std, config.seed
    model = build_model(shape, init_std=std, seed=seed, attention=attention, head=head, config=model_config)
    scale_initial_weights(model, config.optim)
    if start:
        take_weights(model, start.folder, shape, head)
    return model
