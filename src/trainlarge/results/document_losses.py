"""Losses of cells summed over the documents of the evaluation set, read where a comparison needs them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from trainlarge.errors import UserError
from trainlarge.sweep.files import read_json
from trainlarge.sweep.store import CellFolder, Study

DRAWS = 2000
"""Resamplings of the documents: the standard error that they give is then good to 2 %."""
SEED = 2002_11794
"""Seed of the resampling: equal studies give equal intervals."""

Weights = Sequence[tuple[str, float]]
"""Cells and their weights in a mean: two cells where a value is between them."""


@dataclass(frozen=True)
class DocumentLosses:
    """The losses per document of a study's cells; nothing is read before ``sample``."""

    study: Study | None = None
    """Where the cells lie; None: nothing is known per document."""

    def sample(self, stage: str, cells: Iterable[str]) -> Sample:
        """Losses of those of the cells that kept them, over the documents of the first.

        Cells with other documents or a damaged file are left out, the latter with a warning.
        """
        found = Sample()
        for cell in cells if self.study else ():
            content = _content(self.study.folder(stage, cell)) if self.study else None
            if content is not None:
                found.add(cell, content)
        return found


@dataclass
class Sample:
    """Per-document losses of some cells, and what resampling the documents makes of their means."""

    documents: list[int] = field(default_factory=list)
    """Numbers of the documents."""
    predictions: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Predictions in each, [documents]."""
    sums: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """Kind (``loss``, ``increase``) -> cell -> sums over documents, in ``unit``, [documents]."""
    unit: str = "nats"
    """Unit of the losses."""

    def add(self, cell: str, content: Mapping[str, Any]) -> None:
        """Take in the file of a cell if it is over the same documents."""
        if not self.documents:
            self.documents, self.predictions = content["documents"], np.array(content["predictions"], float)
        if content["documents"] != self.documents or len(content["predictions"]) != len(self.documents):
            return
        loss = np.array(content["loss"], float)
        self.sums.setdefault("loss", {})[cell] = loss
        if "dense_loss" in content:
            self.sums.setdefault("increase", {})[cell] = loss - np.array(content["dense_loss"], float)

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

    def draws(self, kind: str, means: Sequence[Weights]) -> np.ndarray | None:
        """Weighted means of cells under resampled documents (cluster bootstrap), less their values as measured.

        Returns:
            Shape [means, ``DRAWS``], in ``unit``; None where a cell kept no losses per document, or there is only one
            document.
        """
        known = self.sums.get(kind, {})
        if len(self.documents) < 2 or any(cell not in known for weights in means for cell, _ in weights):
            return None
        sums = np.array([sum(weight * known[cell] for cell, weight in weights) for weights in means])
        resampled, predictions = self._resampled
        values: np.ndarray = (sums @ resampled) / predictions - (sums.sum(1) / self.predictions.sum())[:, None]
        return values

    @cached_property
    def _resampled(self) -> tuple[np.ndarray, np.ndarray]:
        """How often each document was drawn, [documents, draws], and the predictions of each draw, [draws]."""
        drawn = _drawn(len(self.documents))
        return drawn, self.predictions @ drawn


@lru_cache(maxsize=4)
def _drawn(count: int) -> np.ndarray:
    """How often each of ``count`` documents is drawn, with replacement, [documents, draws]."""
    return np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), DRAWS).T.astype(float)


def _content(folder: CellFolder) -> dict[str, Any] | None:
    """What a cell kept per document; None where it kept nothing, or where that is damaged, with a warning."""
    try:
        folder.prove(folder.document_losses.name)
        content = dict(read_json(folder.document_losses))
        if len({len(content[key]) for key in ("documents", "predictions", "loss")}) != 1:
            raise ValueError("lists of unequal length")
    except FileNotFoundError:
        return None
    except UserError as error:
        warnings.warn(f"an order is not tested: {error}", stacklevel=2)
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        # Of a cell whose record keeps no digests.
        hint = f"losses per document of cell {folder.id}; to make them again: {folder.redo_command}"
        warnings.warn(str(UserError(str(folder.document_losses), type(error).__name__, hint)), stacklevel=2)
        return None
    return content
