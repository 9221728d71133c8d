"""What the report says of one part of a study: sentences, verdicts, figures and tables."""

from __future__ import annotations

import base64
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.scored_models import ScoredModels
from trainlarge.results.claims.claim import Claim, Standing, Verdict
from trainlarge.results.claims.claims import judged
from trainlarge.results.comparable import LOSS, differences
from trainlarge.results.frames import StudyFrames
from trainlarge.results.model_folders import of_folders
from trainlarge.results.report.drawings import Drawing, drawings
from trainlarge.results.report.finding import Finding, listed
from trainlarge.results.report.findings import findings, summary
from trainlarge.results.report.findings_of_finetuning import finetuning_findings, score_rows
from trainlarge.results.report.findings_of_folders import folder_findings, folder_table
from trainlarge.results.report.findings_of_scores import budget_rows
from trainlarge.results.report.style import save
from trainlarge.results.report.tables import Table, few_rows, scored_tables, tables
from trainlarge.results.report.tables_of_texts import text_tables
from trainlarge.results.scores import ANY_TASK
from trainlarge.results.study_parts import Part

SHOWN_CELLS = 3
FOLDERS = "Hugging Face folders"


@dataclass(frozen=True)
class JudgedClaim:
    """A claim and its verdict, as the page shows them."""

    name: str
    statement: str
    source: str
    standing: str
    text: str
    cells: str

    @classmethod
    def of(cls, claim: Claim, verdict: Verdict) -> JudgedClaim:
        """With the first of its cells, and how many more there are."""
        shown, more = verdict.cells[:SHOWN_CELLS], len(verdict.cells) - SHOWN_CELLS
        cells = ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
        return cls(claim.name, claim.statement, claim.source, str(verdict.standing), verdict.text, cells)


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    name: str
    """Name of the part; empty where the study has one."""
    summary: str
    """Its main findings as one paragraph."""
    findings: list[Finding]
    """All sentences."""
    verdicts: list[tuple[Claim, Verdict]]
    """The paper's claims, judged."""
    figures: list[tuple[Drawing, str, str]]
    """Drawing, text alternative, data address."""
    tables: list[Table]
    """Its tables."""

    @property
    def found(self) -> list[str]:
        """What the numbers show."""
        return [finding.text for finding in self.findings if finding.is_result]

    @property
    def not_found(self) -> list[str]:
        """What they do not show, or what makes them uncertain."""
        return [finding.text for finding in self.findings if not finding.is_result]

    @property
    def claims(self) -> list[JudgedClaim]:
        """The verdicts as the page shows them."""
        return [JudgedClaim.of(claim, verdict) for claim, verdict in self.verdicts]

    @property
    def claims_in_words(self) -> str:
        """How many claims hold: ``Of 6 findings, 2 hold and 4 are undecided``."""
        return claims_in_words([verdict for _, verdict in self.verdicts])


def claims_in_words(verdicts: list[Verdict]) -> str:
    """How many of the paper's findings hold, do not hold and are undecided; empty without any."""
    counts = Counter(verdict.standing for verdict in verdicts)
    words = {
        Standing.SUPPORTED: ("holds", "hold"),
        Standing.CONTRADICTED: ("does not hold", "do not hold"),
        Standing.UNDECIDED: ("is undecided", "are undecided"),
    }
    parts = [f"{counts[one]} {names[counts[one] > 1]}" for one, names in words.items() if counts[one]]
    return f"Of {len(verdicts)} findings of the paper, {listed(parts)}." if parts else ""


def section(part: Part, folder: Path, name: str = "") -> Section:
    """The section about a part; its figures are written to ``folder`` too.

    Args:
        part: of the study.
        folder: that of the report.
        name: of the part; empty where it is the only one. Names of figures begin with it.
    """
    evidence = Evidence(part.frames, part.compressed_later)
    models = ScoredModels(part, evidence)
    mixed = bool(differences(part.frames.cells, LOSS))
    verdicts = [] if mixed or part.frames.cells.empty else judged(part, evidence)
    told = finetuning_findings(models) if part.is_finetuned and not mixed else findings(part.frames, evidence)
    prefix = re.sub(r"\W+", "_", name).strip("_") + "_" if name else ""
    figures = [
        (one, one.describe(models), embedded(prefix + one.name, one.draw(models), folder)) for one in drawings(models)
    ]
    summed = _summary(told) if part.is_finetuned else summary(part.frames, evidence)
    counted = claims_in_words([verdict for _, verdict in verdicts])
    return Section(name, f"{summed} {counted}".strip(), told, verdicts, figures, _tables(models))


def folders_section(frames: StudyFrames) -> Section:
    """The section about the Hugging Face folders of a study that has parts beside them."""
    told = folder_findings(frames.compression)
    return Section(FOLDERS, " ".join(map(str, told)), told, [], [], [folder_table(frames.compression)])


def _summary(told: list[Finding]) -> str:
    main = [finding for finding in told if finding.is_result] or [Finding("Nothing can be compared yet.")]
    return " ".join(map(str, main))


def _tables(models: ScoredModels) -> list[Table]:
    """Those of train cells, what was made of them and their data, and that of Hugging Face folders."""
    frames = models.frames
    if models.part.is_finetuned:
        return [_scores(models), *scored_tables(frames, models.column), *text_tables(frames.cells, frames.texts)]
    if models.are_scored:
        made = [_scores_by_budget(models), *scored_tables(frames, models.column)]
        made += text_tables(frames.cells, frames.texts)
        return made if of_folders(frames.compression).empty else [*made, folder_table(frames.compression)]
    made = [] if frames.cells.empty else tables(frames, models.evidence)
    made += [] if frames.cells.empty else text_tables(frames.cells, frames.texts)
    return made if of_folders(frames.compression).empty else [*made, folder_table(frames.compression)]


def _scores(models: ScoredModels) -> Table:
    rows, left_out = few_rows(score_rows(models))
    unit = ANY_TASK["loss"].short_unit
    header = ["size", "pretraining", f"pretraining loss ({unit})", models.column, f"spread ({models.unit})", "runs"]
    note = f"Means over runs, spread: their standard deviation.{left_out}"
    return Table("Finetuned models", note, header, rows)


def _scores_by_budget(models: ScoredModels) -> Table:
    rows, left_out = few_rows(budget_rows(models))
    header = ["size", "budget", models.column, f"spread ({models.unit})", "runs"]
    return Table("Scores", f"Means over runs, spread: their standard deviation.{left_out}", header, rows)


def embedded(name: str, figure: Figure, folder: Path) -> str:
    """Write a figure to the folder of the report, and return it as a data address.

    Args:
        name: of its files, without a suffix.
    """
    paths = {written.suffix: written for written in save(figure, folder / name)}
    return "data:image/svg+xml;base64," + base64.b64encode(paths[".svg"].read_bytes()).decode()
