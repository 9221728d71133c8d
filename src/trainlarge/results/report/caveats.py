"""What makes the answer of a study uncertain: said first, before any finding."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.intervals import number
from trainlarge.results.analysis.plateau import frequency_loss_of, on_plateau
from trainlarge.results.comparable import SIZES, differences
from trainlarge.results.report.finding import Finding, counted, listed
from trainlarge.results.report.findings_of_time import all_warm_up, budgets_missed, never_undisturbed
from trainlarge.results.report.findings_of_training import clocks
from trainlarge.results.series import by_size

SEEN_SHARE = 0.1
"""Share of the validation text that stands in the training text too from which on the report says so; 0.03 for
``stdlib``."""


def caveats(evidence: Evidence) -> list[Finding]:
    """One sentence for each thing that decides whether the findings can be trusted."""
    return [finding for caveat in CAVEATS for finding in caveat(evidence)]


def chosen(evidence: Evidence) -> list[Finding]:
    """Which series are compared, where there are too many for all."""
    whole = evidence.whole.cells["series"].nunique()
    sentences = []
    if whole > len(evidence.compared):
        sentences.append(
            f"{whole:,} series were trained; compared are the {len(evidence.compared)} that are best at a budget or "
            "most often on a frontier, then of best rank. Figures show every cell, cells.csv holds them all."
        )
    made, compared = (rows["series"].nunique() for rows in (evidence.compressible, evidence.known))
    if made > compared:
        sentences.append(
            f"Of {made:,} series that were compressed, compared are the {compared} with the most points of the "
            "frontier of loss and file size, then with the lowest losses."
        )
    return [Finding(text, is_result=False) for text in sentences]


def plateau(evidence: Evidence) -> list[Finding]:
    """Which models have learned no more than frequencies; that none has learned more is the first thing to know."""
    cells, frequency_loss = evidence.whole.cells, frequency_loss_of(evidence.whole.cells)
    if frequency_loss is None or cells.empty:
        return []
    loss, frequencies = evidence.loss, evidence.frequencies
    level = f"the loss of {frequencies} alone is {number(frequency_loss, 2)} {loss.short_unit}"
    stuck = cells[on_plateau(cells["loss"], cells["frequency_loss"], loss)]
    if len(stuck) == len(cells):
        lowest = number(float(cells["loss"].min()), 2)
        text = f"No model has learned more than {frequencies}, so no size is better: {level}, the lowest {lowest}."
        return [Finding(text, is_result=False)]
    if stuck.empty:
        return []
    budgets = stuck.groupby("series", sort=False)["budget"].unique()
    names = listed([f"{name} after {listed(budgets[name])}" for name in by_size(stuck)])
    text = f"{names}: not {loss.amount(loss.tie)} below what {frequencies} give ({level}), so not yet comparable."
    return [Finding(text, is_result=False)]


def overlap(evidence: Evidence) -> list[Finding]:
    """Whether much of the validation text was seen in training: by whole documents where all are short."""
    cells = evidence.whole.cells
    passages, documents = (cells[f"overlap_{unit}"].astype(float).max() for unit in ("passages", "documents"))
    if passages > SEEN_SHARE:
        seen = f"{100 * passages:.0f} % of the validation text (passages of 50 characters) also occurs"
    elif documents > SEEN_SHARE:
        seen = f"{100 * documents:.0f} % of the validation documents also occur"
    else:
        return []
    return [Finding(f"{seen} in the training text: losses are lower than on unseen text.", is_result=False)]


def seeds(evidence: Evidence) -> list[Finding]:
    """Whether the order of sizes can be tested at all."""
    cells = evidence.cells
    if cells["series"].nunique() < 2:
        return []
    counts = cells.groupby("series")["seed"].nunique()
    single = [name for name in by_size(cells) if counts[name] == 1]
    if not single:
        return []
    seeds = "One seed per size" if len(single) == len(counts) else f"Only one seed of {listed(single)}"
    text = f"{seeds}: which size is better was not tested, since how much runs differ by their seed is not known."
    return [Finding(text, is_result=False)]


def documents(evidence: Evidence) -> list[Finding]:
    """Whether intervals can be given."""
    cells = evidence.cells
    if cells["series"].nunique() < 2 or set(cells["cell"]) <= set(evidence.trained.sums.get("loss", {})):
        return []
    text = "Losses per document were not kept for all cells: without them no order is tested."
    return [Finding(text, is_result=False)]


def disturbed(evidence: Evidence) -> list[Finding]:
    """Whether seconds can be trusted."""
    return clocks(evidence.whole.cells) if "model_seconds" in evidence.axes else []


def sizes(evidence: Evidence) -> list[Finding]:
    """Whether bytes of packed files were counted in one way."""
    return packings(evidence.frames.compression)


def packings(compression: pd.DataFrame) -> list[Finding]:
    """Which versions of the choice of encodings there are, where there are several."""
    differing = differences(compression, SIZES)
    if not differing:
        return []
    text = (
        f"File sizes are not quite of one measure: compressed models differ in {differing}. The same weights may take "
        "fewer bytes in a newer version; trainlarge compress --redo writes a cell anew."
    )
    return [Finding(text, is_result=False)]


def lost_parts(evidence: Evidence) -> list[Finding]:
    """Whether recipes took nearly all of some matrices, as global pruning may, while the whole looks well."""
    return nearly_lost(evidence.frames.compression)


def nearly_lost(compression: pd.DataFrame) -> list[Finding]:
    """Which recipes left nearly nothing of a matrix, most often first."""
    names = compression["nearly_lost"]
    rows = compression[names.notna() & names.ne("")]
    if rows.empty:
        return []
    recipes = rows["recipe"].value_counts()
    first = rows[rows["recipe"] == recipes.index[0]].iloc[0]
    models = counted(len(compression), "compressed model", "compressed models")
    text = (
        f"Of some matrices nearly nothing is left in {len(rows)} of {models}: "
        f"{listed(f'{recipe} ({count})' for recipe, count in recipes.items())}. An example is "
        f"{first['nearly_lost'].split(', ')[0]} in cell {first['cell']}, whose log says how much is left."
    )
    return [Finding(text, is_result=False)]


def times(evidence: Evidence) -> list[Finding]:
    """Which budgets in seconds were missed, or measured only while other work ran; and where all steps are warm-up."""
    cells = evidence.whole.cells
    return [*budgets_missed(cells), *never_undisturbed(cells), *all_warm_up(cells)]


CAVEATS: tuple[Callable[[Evidence], list[Finding]], ...] = (
    chosen,
    times,
    plateau,
    overlap,
    disturbed,
    seeds,
    documents,
    sizes,
    lost_parts,
)
"""What is looked at, in the order in which it is said."""
