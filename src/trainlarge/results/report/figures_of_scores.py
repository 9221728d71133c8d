"""Figures of what the paper claims: scores against pretraining loss, under compression along training, and weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from trainlarge.errors import UserError
from trainlarge.results.analysis.scored_models import ScoredModels, Treatment
from trainlarge.results.claims.weights import MODEL, layer_changes
from trainlarge.results.report.style import (
    INK,
    LINE_STYLES,
    Look,
    figure_of,
    legend_below,
    log_axis,
    log_ticks,
    note,
)
from trainlarge.results.scores import ANY_TASK, axis_label
from trainlarge.results.series import last_budget
from trainlarge.results.units import significant
from trainlarge.results.weight_changes import MODULES, by_module

Means = pd.DataFrame


def pretraining_figure(models: ScoredModels) -> Figure:
    """The score of every finetuned model against the loss of the checkpoint that it started from: a line per shape.

    Means over runs; loss falls to the right. Larger models are harder to finetune where their line is the worse one at
    equal loss.
    """
    cells, look = models.cells, Look.of(models.cells)
    with figure_of() as (figure, (axes,)):
        lines: dict[str, Line2D] = {}
        for shape, points in _means(cells, ["parent_loss", models.column]):
            (lines[shape],) = axes.plot(points["parent_loss"], points[models.column], linewidth=2, **look.marked(shape))
        axes.invert_xaxis()
        axes.set_xlabel(f"pretraining loss ({ANY_TASK['loss'].short_unit}), less to the right")
        _score_axis(axes, models)
        note(axes, ["means over runs", _baseline(axes, models)])
        legend_below(axes, list(lines.values()), list(lines), "shape")
    return figure


def convergence_figure(models: ScoredModels) -> Figure:
    """Scores at full precision and quantized along training, a colour per shape: the paper's figure 8."""
    treatment = quantized(models)
    if treatment is None:
        raise UserError("compression", "no cells", "models of every size that are quantized in the same way")
    trained = models.cells[models.cells["series"].isin(treatment.rows["series"])]
    look = Look.of(treatment.rows)
    with figure_of() as (figure, (axes,)):
        handles: dict[str, Line2D] = {}
        for rows, dashes, face in ((trained, LINE_STYLES[0], None), (treatment.rows, LINE_STYLES[1], "white")):
            for shape, points in _means(rows, ["flops", models.column]):
                marks = look.marked(shape) | {"markeredgecolor": look.colour[shape]}
                (line,) = axes.plot(points["flops"], points[models.column], linestyle=dashes, linewidth=2, **marks)
                line.set_markerfacecolor(face or look.colour[shape])
                handles.setdefault(shape, line)
        log_axis(axes, "flops", trained["flops"])
        _score_axis(axes, models)
        note(axes, ["filled: as trained", f"dashed, open: {treatment.name}", "means over runs"])
        legend_below(axes, [handles[shape] for shape in look.colour], list(look.colour), "shape")
    return figure


def weight_figure(models: ScoredModels) -> Figure:
    """How far weights move, module by module, a line per shape and a panel per way to change them: figure 9."""
    changes = weight_changes(models)
    if changes.empty:
        raise UserError("weights", "no changes", "compress cells that recorded how far they moved each matrix")
    look, kinds = Look.of(changes), list(changes["treatment"].unique())
    with figure_of(panels=len(kinds), height=2.8) as (figure, panels):
        handles: dict[str, Line2D] = {}
        for axes, kind in zip(panels, kinds, strict=True):
            rows = changes[changes["treatment"] == kind]
            for shape in look.colour:
                points = rows[rows["shape"] == shape].groupby("module")["mean_absolute_change"].mean()
                means = points.reindex(MODULES).dropna()
                (handles[shape],) = axes.plot(list(means.index), means, linewidth=2, **look.marked(shape))
            axes.set_yscale("log")
            axes.set_ylabel("mean |change|")
            axes.set_xticks(range(len(MODULES)), [module.replace(" ", "\n") for module in MODULES])
            note(axes, [kind])
        # Panels share their y axis, whose limits are known when all is drawn.
        for axes in panels:
            axes.yaxis.set_major_locator(FixedLocator(log_ticks(*axes.get_ylim())))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value, 2)))
            axes.yaxis.set_minor_locator(NullLocator())
        legend_below(panels[0], [handles[shape] for shape in look.colour], list(look.colour), "shape")
    return figure


def quantized(models: ScoredModels) -> Treatment | None:
    """The quantization that every size has; None where there is none, or only one budget was compressed."""
    found = next((one for one in models.treatments if one.name.endswith("bits")), None)
    return found if found and found.rows.groupby("series")["budget"].nunique().max() > 1 else None


def weight_changes(models: ScoredModels) -> pd.DataFrame:
    """``layer_changes``, and for finetuned models those since their checkpoint as ``finetuning``."""
    if not models.part.is_finetuned:
        return layer_changes(models)
    cells = last_budget(models.cells)
    known = cells[list(MODEL)]
    moved = by_module(models.frames.weights.of("train", cells["cell"])).merge(known, on="cell")
    moved = moved[moved["module"].isin(MODULES)].assign(treatment="finetuning")
    return pd.concat([table for table in (layer_changes(models), moved) if len(table)] or [moved], ignore_index=True)


def _means(rows: pd.DataFrame, values: list[str]) -> list[tuple[str, Means]]:
    """Shape -> means over runs after each budget, the smallest shape and the least training first."""
    order = rows.groupby("shape")["parameters"].min().sort_values(kind="stable").index
    means = rows.groupby(["shape", "budget_unit", "budget_value"])[values].mean()
    return [(str(shape), means.loc[shape]) for shape in order]


def _score_axis(axes: Axes, models: ScoredModels) -> None:
    axes.set_ylabel(axis_label(models.metric))
    if models.is_share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.6g} %"))


def _baseline(axes: Axes, models: ScoredModels) -> str:
    """Draw the score of the majority class, or of the mean; the remark that says what it is.

    Where a line there would leave the models less than half of the axis, the remark alone says it.
    """
    column = f"baseline_{models.column}"
    value = models.cells[column].astype(float).mean() if column in models.cells else np.nan
    if np.isnan(value):
        return ""
    name = "most frequent label" if models.is_share else "the mean alone"
    low, high = axes.get_ylim()
    if not low - (high - low) <= value <= high + (high - low):
        return f"{name}: {100 * value:.1f} %" if models.is_share else f"{name}: {significant(value, 3)}"
    axes.axhline(value, color=INK, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    return f"dotted: {name}"
