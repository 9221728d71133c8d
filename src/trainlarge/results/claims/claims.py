"""All claims that a study is judged by."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.scored_models import ScoredModels
from trainlarge.results.claims.claim import Claim, Verdict, undecided
from trainlarge.results.claims.convergence import CONVERGENCE
from trainlarge.results.claims.equal_size import EQUAL_BYTES, EQUAL_PARAMETERS
from trainlarge.results.claims.finetuning import FINETUNING
from trainlarge.results.claims.robustness import ROBUSTNESS
from trainlarge.results.claims.weights import WEIGHTS
from trainlarge.results.study_parts import Part, of_cells

CLAIMS: tuple[Claim, ...] = (FINETUNING, ROBUSTNESS, CONVERGENCE, EQUAL_BYTES, EQUAL_PARAMETERS, WEIGHTS)
"""The paper's findings, in the order in which a report judges them."""


def judged(part: Part, evidence: Evidence | None = None) -> list[tuple[Claim, Verdict]]:
    """Every claim that is about the models of a part, with its verdict; none where nothing was compressed or finetuned.

    No claim is judged on models that are at chance: what they score says nothing of them.

    Args:
        part: of a study (``trainlarge.results.study_parts.parts_of``).
        evidence: that of its frames, where the caller has it already.
    """
    models = ScoredModels(part, evidence)
    if models.cells.empty or (models.compressed.empty and not part.is_finetuned):
        return []
    if len(models.at_chance):
        return _without_chance(models)
    verdicts = [(claim, claim.judge(models)) for claim in CLAIMS]
    return [(claim, verdict) for claim, verdict in verdicts if verdict is not None]


def _without_chance(models: ScoredModels) -> list[tuple[Claim, Verdict]]:
    """The claims judged on the models that are left, where some are at chance."""
    cells, frames, chance = models.cells, models.part.frames, models.at_chance
    is_left_out = pd.MultiIndex.from_frame(cells[["series", "budget"]]).isin(
        pd.MultiIndex.from_frame(chance[["series", "budget"]])
    )
    left = frames.cells[frames.cells["cell"].isin(cells.loc[~is_left_out, "cell"])]
    told = f"{len(chance)} of {cells.groupby(['series', 'budget']).ngroups} sizes and budgets are at chance"
    if left.empty:
        claims = [claim for claim in CLAIMS if claim.judge(models) is not None]
        return [(claim, undecided(f"{told}: nothing can be judged on them", cells)) for claim in claims]
    verdicts = judged(replace(models.part, frames=of_cells(frames, left)))
    return [(claim, replace(one, text=f"{one.text} Left out: {told}.")) for claim, one in verdicts]
