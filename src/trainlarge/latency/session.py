"""One command's measurements: which models, by which runtimes, at which sizes; what is measured is kept at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from trainlarge.config.impl import ImplConfig
from trainlarge.latency.break_even import Product, measured_break_even
from trainlarge.latency.cell_models import CellModels, check_has_model, check_length, models_of, tokens_for
from trainlarge.latency.measuring import measured
from trainlarge.latency.runtime import Runtime, Subject
from trainlarge.machine.device import choose
from trainlarge.machine.energy import find_energy
from trainlarge.machine.features import features_of
from trainlarge.sweep.latencies import (
    BreakEven,
    Latency,
    keep_break_evens,
    keep_latencies,
    read_break_evens,
    read_latencies,
)
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training.context import COMPILED


@dataclass(frozen=True)
class Wanted:
    """How cells are measured."""

    runtimes: tuple[Runtime, ...]
    """Those that take turns with dense."""
    batches: tuple[int, ...]
    """Rows of a pass; each is measured by itself."""
    length: int | None
    """Tokens of a row; None: as many as rows of the cell's data have."""
    rounds: int
    """Rounds in which the runtimes take turns."""
    impl: ImplConfig
    """Device and CPU threads."""


class Session:
    """Measures cells of a study.

    Args:
        study: which keeps what is measured.
        wanted: how.

    Raises:
        UserError: the device is not there, or what was measured before is damaged.
    """

    def __init__(self, study: Study, wanted: Wanted) -> None:
        self.study, self.wanted = study, wanted
        self.implementation = choose(wanted.impl)
        self.features = features_of(self.implementation.device)
        self.energy = find_energy()
        read_latencies(study)
        read_break_evens(study)

    def check(self, folders: Sequence[CellFolder]) -> None:
        """Refuse cells without a model, before the first is measured.

        Raises:
            UserError: on ``cell``.
        """
        for folder in folders:
            check_has_model(folder)

    def measure(self, folder: CellFolder) -> Iterator[list[Latency]]:
        """The rows of a cell, batch by batch, which are kept before they are given.

        Raises:
            UserError: a file is damaged, or the rows are longer than the model's.
        """
        models = models_of(folder, self.study, self.implementation.device)
        length = self.wanted.length or models.data.sequence_length
        check_length(models.model, length)
        for batch in self.wanted.batches:
            with TemporaryDirectory() as scratch, _threads(self.implementation.threads):
                subject = self._subject(models, batch, length, Path(scratch))
                rows = measured(folder, subject, self.wanted.runtimes, self.wanted.rounds, self.energy)
            keep_latencies(self.study, rows)
            yield rows

    def break_evens(self, folders: Sequence[CellFolder]) -> Iterator[BreakEven]:
        """Rows for the linear layers of cells, each shape once; kept before they are given."""
        products: set[Product] = set()
        for folder in folders:
            models = models_of(folder, self.study, "cpu")
            length = self.wanted.length or models.data.sequence_length
            layers = [module for module in models.model.modules() if isinstance(module, nn.Linear)]
            for batch in self.wanted.batches:
                tokens = batch * length
                products |= {Product(layer.out_features, layer.in_features, tokens) for layer in layers}
        for product in sorted(products):
            with _threads(self.implementation.threads):
                row = measured_break_even(product, self.implementation, self.wanted.rounds)
            keep_break_evens(self.study, [row])
            yield row

    def _subject(self, models: CellModels, batch: int, length: int, scratch: Path) -> Subject:
        return Subject(
            model=models.model,
            tokens=tokens_for(models, batch, length),
            device=self.implementation.device,
            threads=self.implementation.threads,
            features=self.features,
            scratch=scratch,
            cache=self.study.data_root / COMPILED,
            checkpoint=models.checkpoint,
        )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """With so many CPU threads of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
