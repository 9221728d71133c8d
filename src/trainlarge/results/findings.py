"""Everything that a study shows and does not show, in sentences made from its numbers."""

from __future__ import annotations

from trainlarge.results.comparable import LOSS, differences
from trainlarge.results.finding import Finding
from trainlarge.results.findings_of_compression import compression_findings
from trainlarge.results.findings_of_time import all_warm_up, budgets_missed, never_undisturbed
from trainlarge.results.findings_of_training import training_findings
from trainlarge.results.frames import StudyFrames

SUMMARY_SENTENCES = 4


def findings(frames: StudyFrames) -> list[Finding]:
    """All findings of a study, what was found and what was not; one sentence where its losses cannot be compared."""
    mixed = differences(frames.cells, LOSS)
    if mixed:
        return [Finding(f"Losses are not compared: cells differ in {mixed}.", found=False)]
    good = frames.with_losses()
    first = [*budgets_missed(good.cells), *never_undisturbed(good.cells), *all_warm_up(good.cells), *_diverged(frames)]
    return [*first, *training_findings(good.cells), *compression_findings(good.compression)]


def summary(frames: StudyFrames) -> str:
    """The main findings as one paragraph: missed budgets, then the first on training, then the first on compression."""
    if differences(frames.cells, LOSS):
        return " ".join(map(str, findings(frames)))
    good = frames.with_losses()
    first = budgets_missed(good.cells)
    training = [finding for finding in training_findings(good.cells) if finding.found][: SUMMARY_SENTENCES // 2]
    compression = [finding for finding in compression_findings(good.compression) if finding.found]
    return (
        " ".join(map(str, first + training + compression[: SUMMARY_SENTENCES - len(training)]))
        or "Nothing can be compared yet."
    )


def _diverged(frames: StudyFrames) -> list[Finding]:
    """Cells whose loss stopped being a number: they are in no figure."""
    shapes = frames.cells.loc[frames.cells["diverged"], "series"]
    if shapes.empty:
        return []
    told = ", ".join(f"{name} ({count})" for name, count in shapes.value_counts(sort=False).items())
    return [Finding(f"Training diverged in {len(shapes)} of {len(frames.cells)} cells: {told}.", found=False)]
