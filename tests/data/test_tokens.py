from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainlarge.data import tokens
from trainlarge.data.tokenizer import SEP_ID, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(prepared):
    return load_tokenizer(prepared.tokenizer_file)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(min_size=1), min_size=1, max_size=20), size=st.integers(1, 50))
def test_file_holds_every_document_whatever_the_batches(tokenizer, tmp_path, monkeypatch, texts, size):
    monkeypatch.setattr(tokens, "BATCH_CHARACTERS", size)
    counts = tokens.write_tokens(tmp_path / "a.bin", texts, tokenizer, np.dtype("<u2"))
    ids = tokens.open_tokens(tmp_path / "a.bin", np.dtype("<u2"))
    ends = np.flatnonzero(ids == SEP_ID)
    documents = [tokenizer.decode(part.tolist()) for part in np.split(ids, ends + 1)[:-1]]
    assert [text.replace("[SEP]", "") for text in documents] == texts
    assert (counts.documents, counts.tokens, counts.characters) == (len(texts), len(ids), sum(map(len, texts)))
    assert counts.sha256 == hashlib.sha256((tmp_path / "a.bin").read_bytes()).hexdigest()


def test_dtype_grows_with_the_vocabulary():
    assert [tokens.id_dtype(size) for size in (260, 65_535, 65_536, 250_000)] == ["<u2", "<u2", "<u4", "<u4"]


@given(st.lists(st.text()), st.integers(1, 30))
def test_batches_keep_all_documents_in_order(texts, size):
    assert [text for batch in tokens.batches(texts, size) for text in batch] == texts
