"""Losses of cells summed over the documents of the evaluation set, read where a comparison needs them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from trainlarge.config.group import Plain
from trainlarge.errors import UserError
from trainlarge.sweep.files import read_json
from trainlarge.sweep.resampling import Floats, drawn
from trainlarge.sweep.store import CellFolder, Study

Weights = Sequence[tuple[str, float]]
"""Cells and their weights in a mean: two cells where a value is between them."""


@dataclass(frozen=True)
class DocumentSums:
    """What a cell keeps per document of the evaluation set: all lists have one number per document."""

    documents: list[Plain]
    """Numbers of the documents."""
    predictions: Floats
    """Predictions in each."""
    loss: Floats
    """Sum of the losses of its predictions."""
    dense_loss: Floats | None = None
    """The same of the checkpoint as it was, for a compress cell."""

    @classmethod
    def from_json(cls, data: Plain) -> DocumentSums:
        """From the content of the file.

        Raises:
            KeyError, TypeError, ValueError: where that is something else.
        """
        if not isinstance(data, dict):
            raise ValueError("no mapping from keys to values")
        documents = data["documents"]
        predictions, loss = (np.array(data[name], float) for name in ("predictions", "loss"))
        if not isinstance(documents, list) or not predictions.shape == loss.shape == (len(documents),):
            raise ValueError("lists of unequal length")
        dense_loss = np.array(data["dense_loss"], float) if "dense_loss" in data else None
        return cls(documents, predictions, loss, dense_loss)


@dataclass(frozen=True)
class DocumentLosses:
    """The losses per document of a study's cells; nothing is read before ``sample``."""

    study: Study | None = None
    """Where the cells are; None: nothing is known per document."""

    def sample(self, stage: str, cells: Iterable[str]) -> Sample:
        """Losses of those of the cells that kept them, over the documents of the first.

        Cells with other documents or a damaged file are left out, the latter with a warning.
        """
        sample = Sample()
        if self.study is None:
            return sample
        for cell in cells:
            sums = _document_sums(self.study.folder(stage, cell))
            if sums is not None:
                sample.add(cell, sums)
        return sample


@dataclass
class Sample:
    """Per-document losses of some cells, and what resampling the documents makes of their means."""

    documents: list[Plain] = field(default_factory=list)
    """Numbers of the documents."""
    predictions: Floats = field(default_factory=lambda: np.zeros(0))
    """Predictions in each, [documents]."""
    sums: dict[str, dict[str, Floats]] = field(default_factory=dict)
    """Kind (``loss``, ``increase``) -> cell -> sums over documents, in ``unit``, [documents]."""
    unit: str = "nats"
    """Unit of the losses."""

    def add(self, cell: str, sums: DocumentSums) -> None:
        """Take in what a cell kept, if it is over the same documents."""
        if not self.documents:
            self.documents, self.predictions = sums.documents, sums.predictions
        if sums.documents != self.documents:
            return
        self.sums.setdefault("loss", {})[cell] = sums.loss
        if sums.dense_loss is not None:
            self.sums.setdefault("increase", {})[cell] = sums.loss - sums.dense_loss

    @property
    def effective(self) -> float:
        """Number of equally long documents that would tell as much: (sum n)^2 / sum n^2 (Kish 1965, section 8.2)."""
        return float(self.predictions.sum() ** 2 / (self.predictions**2).sum()) if self.documents else 0.0

    @property
    def freedom(self) -> float:
        """Degrees of freedom of a standard error over the documents."""
        return max(self.effective - 1, 1.0)

    @property
    def correction(self) -> float:
        """What the variance over resamplings is to be multiplied by: it falls short by (documents - 1) / documents."""
        return len(self.documents) / (len(self.documents) - 1)

    def draws(self, kind: str, means: Sequence[Weights]) -> Floats | None:
        """Weighted means of cells under resampled documents (cluster bootstrap), less their values as measured.

        Returns:
            Shape [means, draws], in ``unit``; None where a cell kept no losses per document, or there is only one
            document.
        """
        known = self.sums.get(kind, {})
        if len(self.documents) < 2 or any(cell not in known for weights in means for cell, _ in weights):
            return None
        sums = np.array([sum(weight * known[cell] for cell, weight in weights) for weights in means])
        resampled, predictions = self._resampled
        values: Floats = (sums @ resampled) / predictions - (sums.sum(1) / self.predictions.sum())[:, None]
        return values

    @cached_property
    def _resampled(self) -> tuple[Floats, Floats]:
        """How often each document was drawn, [documents, draws], and the predictions of each draw, [draws]."""
        times = drawn(len(self.documents))
        return times, self.predictions @ times


def _document_sums(folder: CellFolder) -> DocumentSums | None:
    """What a cell kept per document; None where it kept nothing, or where that is damaged, with a warning."""
    try:
        folder.prove(folder.document_losses.name)
        return DocumentSums.from_json(read_json(folder.document_losses))
    except FileNotFoundError:
        return None
    except UserError as error:
        warnings.warn(f"an order is not tested: {error}", stacklevel=2)
    except (OSError, ValueError, KeyError, TypeError) as error:
        # Of a cell whose record keeps no digests.
        hint = f"losses per document of cell {folder.id}; to make them again: {folder.redo_command}"
        warnings.warn(str(UserError(str(folder.document_losses), type(error).__name__, hint)), stacklevel=2)
    return None
