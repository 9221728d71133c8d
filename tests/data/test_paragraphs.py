from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainlarge.data.paragraphs import HARD_CHARACTERS, SOFT_CHARACTERS, paragraph_groups

LINES = st.lists(st.one_of(st.just(""), st.just(" "), st.integers(1, 3000).map(lambda size: "x" * size)), max_size=60)


@given(LINES)
def test_every_written_line_is_kept_in_order(lines):
    joined = "\n".join(paragraph_groups(lines)).split("\n")
    assert [line for line in joined if line.strip()] == [line for line in lines if line.strip()]


@given(LINES)
def test_documents_are_bounded_and_never_blank(lines):
    longest = max(map(len, lines), default=0)
    for document in paragraph_groups(lines):
        assert document.strip()
        assert len(document) <= HARD_CHARACTERS + longest


def test_a_document_ends_at_a_blank_line_once_it_is_long_enough():
    paragraph = "x" * (SOFT_CHARACTERS // 2)
    documents = list(paragraph_groups([paragraph, "", paragraph, " ", "last"]))
    assert documents == [f"{paragraph}\n\n{paragraph}\n ", "last"]
