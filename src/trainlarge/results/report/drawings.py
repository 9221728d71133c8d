"""The figures of the report, and which of them the models of a part allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from trainlarge.results.analysis.plateau import frequency_loss_of
from trainlarge.results.analysis.scored_models import ScoredModels
from trainlarge.results.comparable import CLOCKS, LOSS, differences, missed, timed
from trainlarge.results.recipes import keeps_shapes, same_task
from trainlarge.results.report.descriptions import (
    bytes_description,
    increase_description,
    size_description,
    training_description,
)
from trainlarge.results.report.descriptions_of_scores import (
    convergence_description,
    pretraining_description,
    weight_description,
)
from trainlarge.results.report.figures import size_figure, training_figure
from trainlarge.results.report.figures_of_compression import bytes_figure, increase_figure
from trainlarge.results.report.figures_of_scores import (
    convergence_figure,
    pretraining_figure,
    quantized,
    weight_changes,
    weight_figure,
)
from trainlarge.results.scores import scores


@dataclass(frozen=True)
class Drawing:
    """A figure of the report."""

    name: str
    """File name without suffix."""
    title: str
    """Heading above it."""
    caption: str
    """How to read it."""
    draw: Callable[[ScoredModels], Figure]
    """Makes it."""
    describe: Callable[[ScoredModels], str]
    """Says what it shows, for those who do not see it."""


def drawings(models: ScoredModels) -> list[Drawing]:
    """The figures that the frames of a part allow.

    None where losses cannot be compared or every cell diverged; none in seconds over several devices or without cells
    that had one alone.
    """
    frames = models.frames
    if frames.cells.empty or differences(frames.cells, LOSS):
        return []
    if models.part.is_finetuned:
        return _of_finetuned(models)
    with_times = timed(frames.cells)
    has_clock = not (with_times.empty or differences(with_times, CLOCKS))
    if models.are_scored:
        return _of_scored(models, has_clock)
    seconds = [_SECONDS] if has_clock else []
    # Those against size have a line for each budget.
    training = [one for one in _TRAINING if "size" not in one.name or not missed(frames.cells).all()]
    if "accuracy" not in scores(frames.cells):
        training = [one for one in training if "accuracy" not in one.name]
    known = same_task(frames.compression).dropna(subset=["series"])
    increases = [_INCREASE] if keeps_shapes(known).any() else []
    return [*seconds, *training, *_of_compressed(models, "loss"), *increases, *_of_claims(models)]


def _of_finetuned(models: ScoredModels) -> list[Drawing]:
    """Those by the metric of the task: against size, pretraining, and what compression leaves of it."""
    return [*_of_downstream(models.column), *_of_compressed(models, models.column), *_of_claims(models)]


def _of_scored(models: ScoredModels, has_clock: bool) -> list[Drawing]:
    """Those by the metric of the task of models from initial weights: along training, against size, compressed."""
    y, title = models.column, models.column.capitalize()
    along = [*([("seconds", "model_seconds", "training time")] if has_clock else []), ("flops", "flops", "FLOPs")]
    figures = [_along(y, f"{y}_against_{end}", f"{title} against {words}", x) for end, x, words in along]
    figures += [] if missed(models.frames.cells).all() else [_downstream_size(y, "One line per budget.")]
    return [*figures, *_of_compressed(models, y), *_of_claims(models)]


def _along(y: str, name: str, title: str, x: str) -> Drawing:
    return Drawing(
        name,
        title,
        "Every point is a checkpoint whose learning rate has decayed.",
        lambda models: training_figure(models.frames, x, y),
        lambda models: training_description(models.frames.cells, x, y),
    )


def _downstream_size(y: str, caption: str) -> Drawing:
    return Drawing(
        f"{y}_against_size",
        f"{y.capitalize()} against size",
        caption,
        lambda models: size_figure(models.frames.cells, y),
        lambda models: size_description(models.frames.cells, y),
    )


def _of_compressed(models: ScoredModels, y: str) -> list[Drawing]:
    known = same_task(models.frames.compression).dropna(subset=["series", y])
    return [] if known.empty else [_against_size(y, *size) for size in _SIZES]


def _of_claims(models: ScoredModels) -> list[Drawing]:
    along = [] if quantized(models) is None else [_CONVERGENCE]
    return [*along, *([] if weight_changes(models).empty else [_WEIGHTS])]


_SECONDS = Drawing(
    "loss_against_seconds",
    "Loss against training time",
    "Every point is a checkpoint whose learning rate has decayed. Time is steps × the steady-state step time, so that "
    "other work on the device does not reorder the lines.",
    lambda models: training_figure(models.frames, "model_seconds"),
    lambda models: training_description(models.frames.cells, "model_seconds"),
)
_TRAINING = (
    Drawing(
        "loss_against_flops",
        "Loss against FLOPs",
        "The same checkpoints against floating-point operations: what hardware does best plays no part.",
        lambda models: training_figure(models.frames, "flops"),
        lambda models: training_description(models.frames.cells, "flops"),
    ),
    Drawing(
        "loss_against_steps",
        "Loss against steps",
        "The same checkpoints against optimizer steps.",
        lambda models: training_figure(models.frames, "step"),
        lambda models: training_description(models.frames.cells, "step"),
    ),
    Drawing(
        "loss_against_size",
        "Loss against size",
        "One line per budget; the lowest point of a line is the best size for it.",
        lambda models: size_figure(models.frames.cells),
        lambda models: size_description(models.frames.cells),
    ),
    Drawing(
        "accuracy_against_size",
        "Accuracy against size",
        "The same, as the share of predictions that are right.",
        lambda models: size_figure(models.frames.cells, "accuracy"),
        lambda models: size_description(models.frames.cells, "accuracy"),
    ),
)
_INCREASE = Drawing(
    "increase_by_recipe",
    "What compression costs each size",
    "Loss after compression less loss before, only quantized and only pruned; bars are standard errors over documents.",
    lambda models: increase_figure(models.frames.compression),
    lambda models: increase_description(models.frames.compression),
)
_CONVERGENCE = Drawing(
    "compressed_along_training",
    "Quantized along training",
    "Does convergence explain robustness? The gap between the two lines of a colour is what quantization costs.",
    convergence_figure,
    convergence_description,
)
_WEIGHTS = Drawing(
    "weight_change",
    "How far weights move",
    "Mean absolute change of a weight in each module of a layer, after the last common budget.",
    weight_figure,
    weight_description,
)
_SIZES = (
    ("bytes", "file_bytes", "file size", "the size is that of the packed file"),
    ("nonzero_parameters", "nonzero_parameters", "non-zero parameters", "embeddings count, zeros do not"),
)
"""End of the file name, column, title, and a remark on the sizes that compressed models are drawn against."""


def _against_size(y: str, end: str, column: str, words: str, remark: str) -> Drawing:
    def draw(models: ScoredModels) -> Figure:
        cells = models.frames.cells
        line = frequency_loss_of(cells) if y == "loss" else None
        return bytes_figure(models.frames.compression, column, frequency_loss=line, y=y)

    return Drawing(
        f"{y}_against_{end}",
        f"{y.capitalize()} against {words}",
        f"Every checkpoint under every recipe, the mean over its seeds; {remark}.",
        draw,
        lambda models: bytes_description(models.frames.compression, column, y),
    )


def _of_downstream(y: str) -> list[Drawing]:
    """Figures of finetuned models by the metric of their task."""
    title = y.capitalize()
    return [
        Drawing(
            f"{y}_against_pretraining_loss",
            f"{title} against pretraining loss",
            "Each point is a checkpoint, finetuned. At equal loss, a worse line is a size that is harder to finetune.",
            pretraining_figure,
            pretraining_description,
        ),
        _downstream_size(y, "One line per pretraining budget."),
        Drawing(
            f"{y}_against_flops",
            f"{title} against FLOPs",
            "FLOPs of pretraining and finetuning together.",
            lambda models: training_figure(models.frames, "flops", y),
            lambda models: training_description(models.frames.cells, "flops", y),
        ),
    ]
