"""Write docs/compression_frontier.md and its figure: bytes against loss, kind by kind of compression, measured.

    trainlarge run compression_frontier && python analysis/compression_frontier.py

Reads the study ``compression_frontier``, or the one that is named. Numbers are means over its seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from trainlarge import load_study
from trainlarge.results import frontier
from trainlarge.results.analysis.intervals import Difference, mean_over_seeds

TARGET = Path(__file__).resolve().parents[1] / "docs" / "compression_frontier.md"
TRAINED_ALONE = "more training, then post-training"
KINDS: dict[str, Callable[[pd.Series], bool]] = {
    "entropy-coded": lambda cell: cell["recipe"].endswith("zstd"),
    "XTC": lambda cell: is_distilled(cell) and cell["structure"] != "none",
    "distilled": lambda cell: is_distilled(cell),
    "quantization-aware": lambda cell: "aware" in cell["recipe"],
    "iterative pruning": lambda cell: cell["prune"] == "iterative",
    TRAINED_ALONE: lambda cell: cell["recover"] != "none",
    "post-training": lambda _cell: True,
}
"""Name of a kind -> whether a cell is of it; the first that fits counts."""
MARKERS = dict(zip(KINDS, "x*PDs^o", strict=True))
HEADER = """# Bytes against quality: what training during compression brings

Made by `trainlarge run compression_frontier` and `python analysis/compression_frontier.py` from {runs} checkpoints of
{model} ({budget}; seeds {seeds}), on {device}{shared}.
Their mean loss is {dense:.3f} nats per masked token, their packed file in fp32 has {bytes:,} bytes.

![Loss increase against bytes of the packed file, by kind of compression](compression_frontier.png)

- *loss*: mean increase against the dense checkpoint, with its 95 % interval over the {runs} seeds. Below 0 the
  compressed model is the better one: it has trained longer.
- *bytes*: the packed file, mean over seeds; *share*: of the dense file.
- *training*: FLOPs of the training inside the recipe, as a share of those of the checkpoint.
- **Bold** recipes are on the frontier: none has as few bytes and less loss.

"""
COMPARISON = """## What awareness brings

Loss against the same checkpoint trained for as many more steps and not quantized, in nats, mean and 95 % interval over
seeds. So the gain of more training is in neither column.
"""


def main() -> None:
    """Read the study, write the page and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("study", nargs="?", default="compression_frontier")
    parser.add_argument("--to", type=Path, default=TARGET)
    options = parser.parse_args()
    study = load_study(options.study)
    rows = recipes(study.compression)
    page = header(study.cells, study.compression) + tables(rows) + comparisons(study.compression)
    options.to.write_text(page, encoding="utf-8")
    draw(rows, options.to.with_suffix(".png"))
    print(options.to)


def is_distilled(cell: pd.Series) -> bool:
    """Whether a teacher takes part in the training."""
    return bool(cell["recover"] == "distill")


def kind_of(cell: pd.Series) -> str:
    """The kind of compression of a cell."""
    return next(name for name, fits in KINDS.items() if fits(cell))


def recipes(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per recipe: means over the seeds, by rising bytes."""
    dense, rows = cells[cells["recipe"] == "dense"].set_index("seed")["file_bytes"], []
    for recipe, group in cells.groupby("recipe"):
        increase = mean_over_seeds(list(group["loss_increase"]), "nats")
        first = group.iloc[0]
        rows.append(
            {
                "cell": recipe,
                "kind": kind_of(first),
                "loss_increase": increase.value,
                "half": (increase.high - increase.low) / 2,
                "file_bytes": group["file_bytes"].mean(),
                "share": (group["file_bytes"] / group["seed"].map(dense)).mean(),
                "training": (group["recover_flops"] / group["flops"]).mean(),
            }
        )
    return pd.DataFrame(rows).sort_values("file_bytes")


def header(cells: pd.DataFrame, compressed: pd.DataFrame) -> str:
    """What was trained, and how the columns are to be read."""
    cell, dense = cells.iloc[0], compressed[compressed["recipe"] == "dense"]
    return HEADER.format(
        runs=len(cells),
        model=f"{cell['arch']} {cell['width']} x {cell['depth']}",
        budget=cell["budget"],
        seeds=", ".join(str(seed) for seed in sorted(cells["seed"])),
        device=f"{cell['device_name']} with {cell['threads']} threads",
        shared=", which other work shared" if compressed["shared"].any() else "",
        dense=dense["loss"].mean(),
        bytes=round(dense["file_bytes"].mean()),
    )


def tables(rows: pd.DataFrame) -> str:
    """One table per kind."""
    best = set(frontier(rows, "file_bytes", "loss_increase")["cell"])
    parts = []
    for kind in reversed(KINDS):
        of_kind = rows[rows["kind"] == kind]
        if len(of_kind):
            lines = "\n".join(_line(row, row["cell"] in best) for _, row in of_kind.iterrows())
            head = "| recipe | loss | bytes | share | training |\n| --- | --- | --- | --- | --- |"
            parts.append(f"## {kind[0].upper()}{kind[1:]}\n\n{head}\n{lines}\n")
    return "\n".join(parts)


def _line(row: pd.Series, is_best: bool) -> str:
    name = f"**{row['cell']}**" if is_best else row["cell"]
    loss = f"{row['loss_increase']:+.3f} ± {row['half']:.3f}"
    return f"| {name} | {loss} | {row['file_bytes']:,.0f} | {row['share']:.1%} | {row['training']:.0%} |"


def comparisons(cells: pd.DataFrame) -> str:
    """What quantization costs beside the same training without it: after the training, and within it."""
    pruned = cells["prune"] != "none"
    cells = cells[~pruned & (cells["quantize"].isin(["none", "uniform"]))].assign(kind=cells.apply(kind_of, axis=1))
    alone = cells[cells["kind"] == TRAINED_ALONE]
    trained = alone[alone["quantize"] == "none"].set_index("seed")["loss"]
    lines = []
    for bits in sorted(set(cells["bits"]) - {32}, reverse=True):
        costs = [
            list((of_kind[of_kind["bits"] == bits].set_index("seed")["loss"] - trained).dropna())
            for of_kind in (alone, cells[cells["kind"] == "quantization-aware"])
        ]
        if all(costs):
            after, within = (mean_over_seeds(cost, "nats") for cost in costs)
            lines.append(f"| {bits} | {_with_half(after)} | {_with_half(within)} | {within.value / after.value:.2f} |")
    head = "| bits | quantized after the training | aware of it while training | ratio |\n| --- | --- | --- | --- |"
    return f"\n{COMPARISON}\n{head}\n" + "\n".join(lines) + "\n"


def _with_half(cost: Difference) -> str:
    return f"{cost.value:+.3f} ± {(cost.high - cost.low) / 2:.3f}"


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Loss increase against bytes, one marker per kind."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    best = frontier(rows, "file_bytes", "loss_increase")
    axes.plot(best["file_bytes"], best["loss_increase"], color="#8c8c8c", linewidth=1, label="frontier")
    for kind in reversed(KINDS):
        of_kind = rows[rows["kind"] == kind]
        if len(of_kind):
            axes.errorbar(
                of_kind["file_bytes"], of_kind["loss_increase"], of_kind["half"], fmt=MARKERS[kind], label=kind
            )
    axes.set(xscale="log", xlabel="bytes of the packed file", ylabel="loss increase, nats")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.grid(color="#e6e6e6")
    figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
