from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from groups import data_group
from trainlarge.config.data import LEAST_VOCABULARY
from trainlarge.data.tokenizer import (
    FIRST_REGULAR_ID,
    MASK_ID,
    SEP_ID,
    SPECIAL_TOKENS,
    head,
    hugging_face_tokenizer,
    load_tokenizer,
    train_tokenizer,
)
from trainlarge.errors import UserError

TEXTS = ["the width and the depth of the layer", "train large, then compress", "naïve 模型 🙂"] * 3


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(TEXTS, 280).save(str(path))
    return path


@pytest.fixture(scope="module")
def tokenizer(path):
    return load_tokenizer(path)


@given(text=st.text())
@example(text="[CLS] a [SEP]\r\n\x00 [MASK][PAD]")
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert all(FIRST_REGULAR_ID <= id < 280 for id in ids)


@pytest.mark.parametrize("size", [260, 261, 280])
def test_exactly_as_many_entries_as_asked_special_tokens_first(size):
    tokenizer = train_tokenizer(TEXTS, size)
    assert tokenizer.get_vocab_size() == size
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3]


def test_training_is_deterministic():
    assert train_tokenizer(TEXTS, 290).to_str() == train_tokenizer(iter(TEXTS), 290).to_str()


@pytest.mark.parametrize("size", [259, 0, -1])
def test_a_vocabulary_that_could_not_hold_every_byte_is_refused(size: int) -> None:
    assert 256 + len(SPECIAL_TOKENS) == LEAST_VOCABULARY
    with pytest.raises(UserError, match=r"data\.vocab_size=.*at least 260"):
        train_tokenizer(TEXTS, size)
    with pytest.raises(UserError, match=r"data\.vocab_size=.*at least 260"):
        data_group({"vocab_size": size})


@pytest.mark.parametrize("size", [300.0, "300", None, True])
def test_a_vocabulary_has_a_whole_number_of_entries(size: object) -> None:
    with pytest.raises(UserError, match=r"data.vocab_size=.* is not valid: must be a whole number"):
        data_group({"vocab_size": size})


def test_too_large_tells_the_most():
    with pytest.raises(UserError, match=r"data\.vocab_size=5000 is not valid: must be at most ") as caught:
        train_tokenizer(TEXTS, 5000)
    most = int(caught.value.allowed.split()[2])
    assert train_tokenizer(TEXTS, most).get_vocab_size() == most


def test_hugging_face_form_agrees_and_frames_sentences(path, tokenizer):
    other = hugging_face_tokenizer(path)
    ids = tokenizer.encode("the depth", add_special_tokens=False).ids
    assert other("the depth")["input_ids"] == [1, *ids, SEP_ID]
    assert other("the depth", "the depth")["input_ids"] == [1, *ids, SEP_ID, *ids, SEP_ID]
    assert (other.pad_token_id, other.cls_token_id, other.sep_token_id, other.mask_token_id) == (0, 1, SEP_ID, MASK_ID)
    assert len(other) == 280 and other.decode(ids) == "the depth"


def test_head_stops_with_the_document_that_reaches_the_count():
    assert list(head(["aaa", "bb", "c", "d"], 4)) == ["aaa", "bb"]
    assert list(head(["aaa"], 100)) == ["aaa"]
