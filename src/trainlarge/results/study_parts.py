"""A study cut into its parts, each with frames of its own; finetuned cells are placed by their pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pandas as pd

from trainlarge.results.columns import PARENT
from trainlarge.results.frames import StudyFrames
from trainlarge.results.parents import PARENT_PREFIX
from trainlarge.results.parts import untrained_part

_BUDGET = ("budget", "budget_value", "budget_unit")


@dataclass(frozen=True)
class Part:
    """The cells of a study that are compared with one another."""

    name: str
    """Its name in the column ``part``."""
    frames: StudyFrames
    """Its cells, their curves, and what was compressed of them."""
    is_finetuned: bool = False
    """Whether its cells started from cells of the study. Then their budget is that of pretraining, their clocks count
    from initial weights on, and of rates and epochs only the chosen ones are there."""
    untrained: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Chosen cells of the same task and data that started from initial weights, where the others are finetuned."""
    compressed_later: Mapping[str, int] = field(default_factory=dict)
    """Other parts whose cells started from cells of this one -> how many compressed models they have."""


def parts_of(frames: StudyFrames) -> list[Part]:
    """The parts of a study: those from initial weights first, in the order in which the frame has them.

    Compressed models of Hugging Face folders belong to no part; a study with one part has them in its frames.
    """
    names = list(frames.cells["part"].unique())
    if len(names) < 2:
        return [Part(str(name), frames) for name in names]
    parts = [_part(frames, str(name)) for name in names]
    return sorted(parts, key=lambda part: part.is_finetuned)


def _part(frames: StudyFrames, name: str) -> Part:
    cells = frames.cells[frames.cells["part"] == name]
    is_finetuned = cells["parent_budget"].notna()
    if not is_finetuned.any():
        return Part(name, of_cells(frames, cells), compressed_later=_compressed_later(frames, cells))
    finetuned = by_pretraining(of_cells(frames, cells[is_finetuned & cells["chosen"]]))
    return Part(name, finetuned, is_finetuned=True, untrained=_untrained(frames.cells, cells))


def _untrained(cells: pd.DataFrame, finetuned: pd.DataFrame) -> pd.DataFrame:
    """Chosen cells from initial weights that are scored on the same rows, whichever tokenizer reads them."""
    is_same = cells["part"].eq(untrained_part(str(finetuned["part"].iloc[0]))) & cells["chosen"]
    for name in ("data_fingerprint", "evaluation_documents"):
        is_same &= cells[name].isin(finetuned[name])
    return cells[is_same]


def _compressed_later(frames: StudyFrames, cells: pd.DataFrame) -> dict[str, int]:
    """Of the parts whose cells started from ``cells``, or from what started from them: compressed models by part."""
    own, started = set(cells["cell"]), set[str]()
    while (more := set(frames.cells.loc[frames.cells["checkpoint"].isin(own | started), "cell"]) - own) > started:
        started = more
    parts = frames.cells.set_index("cell")["part"].reindex(sorted(started))
    counts = frames.compression["parent"].map(parts).value_counts(sort=False)
    return {str(part): int(count) for part, count in counts.sort_index().items()}


def of_cells(frames: StudyFrames, cells: pd.DataFrame) -> StudyFrames:
    """The frames of some train cells: their curves, and what was compressed of them."""
    curves = frames.curves[frames.curves["cell"].isin(cells["cell"])]
    compression = frames.compression[frames.compression["parent"].isin(cells["cell"])]
    return replace(
        frames,
        cells=cells.reset_index(drop=True),
        curves=curves.reset_index(drop=True),
        compression=compression.reset_index(drop=True),
    )


def by_pretraining(frames: StudyFrames) -> StudyFrames:
    """Finetuned cells, and what was compressed of them, under the budget and with the clocks of their whole training.

    Their curves are left out, whose clocks begin where pretraining ended. ``seed`` becomes that of pretraining where
    this varies: runs that share it are one run.
    """
    cells = frames.cells
    placed = {name: cells[PARENT_PREFIX + name] for name in _BUDGET}
    clocks = {name: cells[name] + cells[PARENT_PREFIX + name] for name in ("step", "tokens", "model_seconds")}
    totals = {"flops": cells["total_flops"], "train_seconds": cells["total_seconds"]}
    if cells["parent_seed"].nunique() > 1:
        placed["seed"] = cells["parent_seed"].astype(int)
    cells = cells.assign(**placed, **clocks, **totals)
    compression = frames.compression
    taken = [*PARENT, "seed"]
    moved = cells.set_index("cell")[taken].reindex(compression["parent"]).set_axis(compression.index)
    return replace(frames, cells=cells, curves=frames.curves.iloc[:0], compression=compression.assign(**moved))
