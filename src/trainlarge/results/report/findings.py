"""Everything that a study shows and does not show, in sentences made from its numbers."""

from __future__ import annotations

from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.intervals import LEVEL, number
from trainlarge.results.analysis.scored_models import ScoredModels
from trainlarge.results.comparable import LOSS, differences
from trainlarge.results.frames import StudyFrames
from trainlarge.results.report.caveats import caveats, nearly_lost, packings
from trainlarge.results.report.finding import Finding, listed
from trainlarge.results.report.findings_of_compression import compression_findings
from trainlarge.results.report.findings_of_folders import folder_findings
from trainlarge.results.report.findings_of_scores import score_findings
from trainlarge.results.report.findings_of_training import training_findings
from trainlarge.results.study_parts import Part

SUMMARY_SENTENCES = 4


def findings(frames: StudyFrames, evidence: Evidence | None = None) -> list[Finding]:
    """All findings of a study, caveats first; one sentence where its losses cannot be compared.

    Args:
        evidence: that of the frames, where the caller has it already: to make it takes seconds.
    """
    of_folders = folder_findings(frames.compression)
    if frames.cells.empty:
        return [*packings(frames.compression), *nearly_lost(frames.compression), *of_folders]
    mixed = differences(frames.cells, LOSS)
    if mixed:
        return [Finding(f"Losses are not compared: cells differ in {mixed}.", is_result=False), *of_folders]
    evidence = evidence or Evidence(frames)
    if scored := _scored(frames, evidence):
        return list({str(one): one for one in [*_diverged(frames), *score_findings(scored), *of_folders]}.values())
    sentences = [
        *caveats(evidence),
        *_diverged(frames),
        *training_findings(evidence),
        *compression_findings(evidence),
        *of_folders,
        *method(evidence),
    ]
    return list({finding.text: finding for finding in sentences}.values())


def summary(frames: StudyFrames, evidence: Evidence | None = None) -> str:
    """The main findings as one paragraph: what is uncertain, then the first on training and on compression."""
    if frames.cells.empty or differences(frames.cells, LOSS):
        return " ".join(map(str, findings(frames)))
    evidence = evidence or Evidence(frames)
    if scored := _scored(frames, evidence):
        return " ".join(map(str, score_findings(scored)))
    training = [finding for finding in training_findings(evidence) if finding.is_result][: SUMMARY_SENTENCES // 2]
    compression = [finding for finding in compression_findings(evidence) if finding.is_result]
    main = training + compression[: SUMMARY_SENTENCES - len(training)]
    main = main or [Finding("Nothing can be compared yet.")]
    return " ".join(map(str, [*caveats(evidence), *main]))


def _scored(frames: StudyFrames, evidence: Evidence) -> ScoredModels | None:
    """The models by their scores, where their task is judged by another one than the loss."""
    models = ScoredModels(Part("", frames), evidence)
    return models if models.are_scored else None


def method(evidence: Evidence) -> list[Finding]:
    """How many documents and seeds stand behind the intervals, and how many comparisons were made."""
    sample, cells = evidence.trained, evidence.cells
    if not sample.documents:
        return []
    seeds, tested = cells.groupby("series")["seed"].nunique(), evidence.family.tested
    few, most = int(seeds.min()), int(seeds.max())
    over = "" if most == 1 else f" and over seeds ({few if few == most else f'{few} to {most}'} per size)"
    text = (
        f"95 % intervals are over {len(sample.documents)} documents of the evaluation set, worth "
        f"{number(sample.effective, 0)} equally long ones{over}. "
    )
    rule = (
        f"A difference is called clear if it is significant at {100 * (1 - LEVEL):g} % after Holm's correction for the "
        f"{tested} comparisons of this report that could be tested."
    )
    return [Finding(text + (rule if tested else "No order could be tested, so none is called clear."), is_result=False)]


def _diverged(frames: StudyFrames) -> list[Finding]:
    """Cells whose loss stopped being a number: they are in no figure."""
    diverged = frames.cells.loc[frames.cells["diverged"], "series"]
    if diverged.empty:
        return []
    counts = listed(f"{name} ({count})" for name, count in diverged.value_counts(sort=False).items())
    return [Finding(f"Training diverged in {len(diverged)} of {len(frames.cells)} cells: {counts}.", is_result=False)]
