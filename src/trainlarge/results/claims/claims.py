"""All claims that a study is judged by."""

from __future__ import annotations

from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.scored_models import ScoredModels
from trainlarge.results.claims.claim import Claim, Verdict
from trainlarge.results.claims.convergence import CONVERGENCE
from trainlarge.results.claims.equal_size import EQUAL_BYTES, EQUAL_PARAMETERS
from trainlarge.results.claims.finetuning import FINETUNING
from trainlarge.results.claims.robustness import ROBUSTNESS
from trainlarge.results.claims.weights import WEIGHTS
from trainlarge.results.study_parts import Part

CLAIMS: tuple[Claim, ...] = (FINETUNING, ROBUSTNESS, CONVERGENCE, EQUAL_BYTES, EQUAL_PARAMETERS, WEIGHTS)
"""The paper's findings, in the order in which a report judges them."""


def judged(part: Part, evidence: Evidence | None = None) -> list[tuple[Claim, Verdict]]:
    """Every claim that is about the models of a part, with its verdict; none where nothing was compressed or finetuned.

    Args:
        part: of a study (``trainlarge.results.study_parts.parts_of``).
        evidence: that of its frames, where the caller has it already.
    """
    models = ScoredModels(part, evidence)
    if models.cells.empty or (models.compressed.empty and not part.is_finetuned):
        return []
    verdicts = [(claim, claim.judge(models)) for claim in CLAIMS]
    return [(claim, verdict) for claim, verdict in verdicts if verdict is not None]
