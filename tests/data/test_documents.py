"""Documents of positions, and what token frequencies alone predict."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from trainlarge.config.data import DataConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.data import documents
from trainlarge.data.documents import documents_at, frequency_loss, token_counts
from trainlarge.data.prepare import PreparedData
from trainlarge.models.forward import FORWARDS
from trainlarge.tasks.masked_lm import MaskedLM

SEP = 2


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_a_separator_belongs_to_the_document_that_it_closes(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "CHUNK", chunk)
    tokens = np.array([7, 8, SEP, 9, SEP, SEP, 5, 6], np.uint16)
    places = np.array([[0, 2, 3, 4], [5, 6, 7, 1]])
    assert documents_at(tokens, SEP, places).tolist() == [[0, 0, 1, 1], [2, 3, 3, 0]]


def test_frequencies_give_the_entropy_of_the_tokens() -> None:
    counts = np.array([0, 3, 0, 1])
    assert frequency_loss(counts, np.array([[1, 1], [3, 0]])) == pytest.approx(
        -(2 * math.log(4 / 8) + math.log(2 / 8) + math.log(1 / 8)) / 4
    )


def test_positions_of_the_evaluation_set_know_their_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "CHUNK", 7)
    # Documents of 10 tokens: the id of a regular token tells which one it stands in.
    texts = [[10 + number] * 9 + [SEP] for number in range(12)]
    tokens = np.array([token for text in texts for token in text], np.uint16)
    prepared = PreparedData(tmp_path, "", tmp_path, 40, tokens, tokens, sep_id=SEP)
    config = MaskedLMConfig(evaluation_rows=5, evaluation_mask_rate=0.5)
    data = MaskedLM(config, DataConfig(sequence_length=8), FORWARDS["fast"]).evaluation_set(prepared)
    assert data.documents is not None and data.documents.shape == data.labels.shape
    regular = data.labels != SEP
    assert (data.documents[regular] == data.labels[regular] - 10).all()
    assert len(data.documents.unique()) > 5, "rows cross the ends of documents"
    assert token_counts(prepared).tolist() == np.bincount(tokens, minlength=40).tolist()
