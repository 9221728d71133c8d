"""What findings are made from: comparable cells, their lines and losses per document, and all comparisons together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import pandas as pd

from trainlarge.config.metric import Metric
from trainlarge.results.analysis.contenders import TRAINING_AXES, compressed_contenders, contenders, pairs_left_out
from trainlarge.results.analysis.intervals import Comparison, ComparisonFamily, Difference
from trainlarge.results.analysis.loss_increases import Increases, increases
from trainlarge.results.analysis.plateau import on_plateau
from trainlarge.results.analysis.seed_lines import SeedLines, pair_comparisons
from trainlarge.results.comparable import CLOCK_COLUMNS, CLOCKS, differences, on_axis, timed
from trainlarge.results.document_losses import Sample
from trainlarge.results.frames import StudyFrames
from trainlarge.results.recipes import same_task
from trainlarge.results.scores import frequencies_of, loss_of
from trainlarge.results.training_cost import at_last_budget


class Evidence:
    """A study's frames, and what is computed from them once for all sentences.

    Args:
        frames: of one part of a study.
        compressed_later: other parts whose models began as models of this one -> how many were compressed.
    """

    def __init__(self, frames: StudyFrames, compressed_later: Mapping[str, int] | None = None) -> None:
        self.made = frames.compression
        """All that was compressed, whether it can be compared or not."""
        self.compressed_later = compressed_later or {}
        self.whole = frames.with_losses()
        """All cells that have a loss."""
        self.compared = contenders(self.whole.cells) if len(self.whole.cells) else []
        """The series that are compared: all of them where they are few."""
        self._lines: dict[str, SeedLines] = {}

    @cached_property
    def frames(self) -> StudyFrames:
        """Train cells of the series that are compared, with their curves; what was compressed of any."""
        whole = self.whole
        if len(self.compared) == whole.cells["series"].nunique():
            return whole
        cells, curves = (frame[frame["series"].isin(self.compared)] for frame in (whole.cells, whole.curves))
        return replace(whole, cells=cells.reset_index(drop=True), curves=curves.reset_index(drop=True))

    @property
    def cells(self) -> pd.DataFrame:
        """Train cells of the series that are compared."""
        return self.frames.cells

    @cached_property
    def loss(self) -> Metric:
        """What the loss of the cells means."""
        return loss_of(self.cells)

    @cached_property
    def frequencies(self) -> str:
        """What models of the task learn first, such as ``token frequencies``."""
        return frequencies_of(self.cells)

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Axes on which cells of at least two series can be compared."""
        cells = {x: on_axis(self.cells, x) for x in TRAINING_AXES}
        several = [x for x in TRAINING_AXES if cells[x]["series"].nunique() > 1]
        return tuple(x for x in several if x not in CLOCK_COLUMNS or not differences(cells[x], CLOCKS))

    def lines(self, x: str) -> SeedLines:
        """The lines of all series along ``x``."""
        if x not in self._lines:
            self._lines[x] = SeedLines(on_axis(self.cells, x), x, self.trained)
        return self._lines[x]

    @cached_property
    def trained(self) -> Sample:
        """Losses per document of the train cells."""
        return self._sample("train", self.cells)

    @cached_property
    def compressible(self) -> pd.DataFrame:
        """Compress cells of known train cells whose losses can be compared."""
        return same_task(self.whole.compression).dropna(subset=["series"])

    @cached_property
    def known(self) -> pd.DataFrame:
        """Those of the series that are compared, with ``frequency_loss``."""
        frequency = self.whole.cells.set_index("cell")["frequency_loss"]
        rows = self.compressible
        rows = rows[rows["series"].isin(compressed_contenders(rows))] if len(rows) else rows
        return rows.assign(frequency_loss=rows["parent"].map(frequency))

    @cached_property
    def compressed(self) -> pd.DataFrame:
        """Those of ``known`` whose checkpoint has learned more than the frequencies of what it predicts."""
        return self.known[~on_plateau(self.known["dense_loss"], self.known["frequency_loss"], self.loss)]

    @cached_property
    def compressed_equally(self) -> pd.DataFrame:
        """Those of ``compressed`` whose training, recovery included, is what the last common budget gives."""
        return at_last_budget(self.compressed)

    @cached_property
    def compressed_sample(self) -> Sample:
        """Losses per document of ``compressed``."""
        return self._sample("compress", self.compressed)

    @cached_property
    def increases(self) -> list[Increases]:
        """What the same recipes cost models of different sizes."""
        timed_cells = set() if differences(timed(self.cells), CLOCKS) else set(timed(self.cells)["cell"])
        return increases(self.compressed, timed_cells, self.compressed_sample) if len(self.compressed) else []

    @cached_property
    def family(self) -> ComparisonFamily:
        """Every comparison whose order the report tests."""
        differences: dict[Comparison, Difference] = {}
        for x in self.axes:
            differences |= pair_comparisons(self.lines(x))
        for answer in self.increases:
            differences |= answer.comparisons(self.compressed_sample)
        return ComparisonFamily(differences, self._left_out)

    @cached_property
    def _left_out(self) -> int:
        """Comparisons that could have been made with the series that are left out: their pairs, at two points each."""
        axes = [(on_axis(self.whole.cells, x), on_axis(self.cells, x)) for x in self.axes]
        counts = [(whole["series"].nunique(), compared["series"].nunique()) for whole, compared in axes]
        return sum(2 * pairs_left_out(*count) for count in counts)

    def _sample(self, stage: str, cells: pd.DataFrame) -> Sample:
        return replace(self.frames.documents.sample(stage, cells["cell"]), unit=self.loss.short_unit)
