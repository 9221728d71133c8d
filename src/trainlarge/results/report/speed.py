"""What the report says of the measured speed of cells: sentences, a figure against quality and a table."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from trainlarge.results.frames import StudyFrames
from trainlarge.results.latencies import load_latencies
from trainlarge.results.report.drawings import Drawing
from trainlarge.results.report.finding import Finding, counted, listed
from trainlarge.results.report.section import Section, embedded
from trainlarge.results.report.style import MARKERS, SIZES, figure_of, legend_below, marked, note, shades
from trainlarge.results.report.tables import Row, Table, few_rows
from trainlarge.results.scores import axis_label, main_score, task_of
from trainlarge.results.units import prefixed_text, significant
from trainlarge.sweep.store import Study

SPEED = "Speed"
"""Name of the section."""
DENSE = "dense"
"""The runtime that the others are compared with."""
_PLACE = ["device_name", "threads", "batch", "length"]
"""What rows must agree in to be compared."""
_bytes = prefixed_text("B")


def speed_section(study: Study, frames: StudyFrames, folder: Path) -> Section | None:
    """The section about what ``trainlarge latency`` measured; None where nothing was.

    Args:
        study: whose cells were measured.
        frames: its frames.
        folder: that of the report, which the figure is written to.

    Raises:
        UserError: when the file of measurements is damaged.
    """
    rows = load_latencies(study, frames)
    measured = rows[rows["seconds"].notna()]
    if measured.empty:
        return None
    told = [*_fastest(measured), *_cut(measured), *_without_numbers(rows)]
    figures = [
        (one, _described(measured), embedded(one.name, speed_figure(measured), folder)) for one in _drawings(measured)
    ]
    return Section(SPEED, str(told[0]), told, [], figures, [speed_table(measured)])


def _fastest(measured: pd.DataFrame) -> Iterator[Finding]:
    """For each device and size of a pass, the runtime with the largest median speedup over the models."""
    others = measured[~measured["runtime"].isin([DENSE, "checkpoint"])]
    if others.empty:
        yield Finding("Of the runtimes only dense has numbers.", is_result=False)
    for (device, threads, batch, length), group in others.groupby(_PLACE):
        medians = group.groupby("runtime")["speedup"].agg(["median", "count"]).sort_values("median")
        name, best = medians.index[-1], medians.iloc[-1]
        cores, rows = _counted(threads, "thread"), _counted(batch, "row")
        compared, models = counted(len(medians), "runtime", "runtimes"), counted(int(best["count"]), "model", "models")
        yield Finding(
            f"On {device} with {cores}, {rows} of {length} tokens at once: of {compared} beside dense, {name} is "
            f"fastest, {best['median']:.2g} times dense (median over {models})."
        )


def _cut(measured: pd.DataFrame) -> Iterator[Finding]:
    """How much faster models are that lost layers, heads, neurons or ranks."""
    cut = measured[measured["checkpoint_speedup"].notna() & measured["runtime"].eq(DENSE)]
    for (device, _, batch, length), group in cut.groupby(_PLACE):
        low, high = group["checkpoint_speedup"].min(), group["checkpoint_speedup"].max()
        models, rows = counted(len(group), "model that was", "models that were"), _counted(batch, "row")
        yield Finding(
            f"{models} cut or factorized: {low:.2g} to {high:.2g} times as fast as the checkpoint on {device}, {rows} "
            f"of {length} tokens, both as dense."
        )


def _without_numbers(rows: pd.DataFrame) -> Iterator[Finding]:
    """Runtimes that computed no model, with the reasons."""
    numbers = rows.groupby("runtime")["seconds"].count()
    for name in numbers.index[numbers.eq(0)]:
        reasons = rows.loc[rows["runtime"].eq(name), "why_empty"].unique()
        yield Finding(f"{name} computed no model: {listed(reasons[:3])}.", is_result=False)


def _drawings(measured: pd.DataFrame) -> list[Drawing]:
    if task_of(measured) is None:
        return []
    caption = "Every measured model by every runtime, at the most rows at once. Ratios hold better than times."
    return [
        Drawing(
            "latency_against_quality",
            "Time against quality",
            caption,
            lambda _: speed_figure(measured),
            lambda _: _described(measured),
        )
    ]


def speed_figure(measured: pd.DataFrame) -> Figure:
    """The score of each model against the time of a row, a colour per runtime, at the largest batch.

    Args:
        measured: rows of ``load_latencies`` with numbers, of one task.
    """
    rows = measured[measured["batch"].eq(measured["batch"].max()) & measured["score"].notna()]
    names = list(rows["runtime"].unique())
    with figure_of() as (figure, (axes,)):
        handles = []
        for place, (name, colour) in enumerate(zip(names, shades(SIZES, len(names)), strict=True)):
            points = rows[rows["runtime"].eq(name)]
            marks = marked(colour, MARKERS[place % len(MARKERS)])
            handles += axes.plot(points["seconds"] / points["batch"], points["score"], linestyle="none", **marks)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _milliseconds(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("time of a row (ms), less to the left")
        axes.set_ylabel(axis_label(main_score(rows)[1]))
        note(axes, [f"{rows['batch'].max()} rows of {listed(map(str, rows['length'].unique()))} tokens at once"])
        legend_below(axes, handles, names, "runtime")
    return figure


def _described(measured: pd.DataFrame) -> str:
    fastest = measured.assign(row=measured["seconds"] / measured["batch"]).sort_values("row").iloc[0]
    models = counted(measured["cell"].nunique(), "model", "models")
    runtimes = counted(measured["runtime"].nunique(), "runtime", "runtimes")
    least = f"{_milliseconds(fastest['row'])} ms, by {fastest['runtime']}"
    return f"Time of a row against the score of {models} by {runtimes}; the least is {least}."


def speed_table(measured: pd.DataFrame) -> Table:
    """One row per model, runtime, batch and length."""
    ordered = measured.sort_values([*_PLACE, "series", "cell"], kind="stable").to_dict("records")
    rows, left_out = few_rows([_texts(row) for row in ordered])
    header = ["model", "runtime", "rows", "tokens", "time (ms)", "quartiles", "times dense", "95 % interval"]
    note_text = "Medians over rounds in which the runtimes took turns; latency.csv has all columns." + left_out
    return Table("Time of a pass", note_text, [*header, "times checkpoint", "memory", "most of the time", "cell"], rows)


def _texts(row: Row) -> list[str]:
    times, ratio = ([row[f"{name}{end}"] for end in ("", "_low", "_high")] for name in ("seconds", "speedup"))
    over_checkpoint, working = row["checkpoint_speedup"], row["working_bytes"]
    return [
        " ".join(filter(None, (str(row["series"]), row["recipe"]))),
        row["runtime"],
        str(row["batch"]),
        str(row["length"]),
        _milliseconds(times[0]),
        f"{_milliseconds(times[1])} to {_milliseconds(times[2])}",
        f"{ratio[0]:.2f}",
        f"{ratio[1]:.2f} to {ratio[2]:.2f}",
        "–" if pd.isna(over_checkpoint) else f"{over_checkpoint:.2f}",
        _bytes(row["model_bytes"] + (0 if pd.isna(working) else working)),
        row["kernel"],
        row["cell"],
    ]


def _counted(count: Hashable, one: str) -> str:
    """``1 row``, ``8 rows``, of a number by which pandas has grouped."""
    return f"{count} {one}{'' if count == 1 else 's'}"


def _milliseconds(seconds: float) -> str:
    return significant(1000 * seconds, digits=3)
