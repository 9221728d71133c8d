from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groups import data_group
from trainlarge.data.split import grouped_split, split_of, training_documents
from trainlarge.errors import UserError


def test_share_is_met_on_many_keys():
    validates = sum(split_of(f"key {i}", 0.05) == "validation" for i in range(20_000))
    assert 0.045 < validates / 20_000 < 0.055


@given(st.text(), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_larger_share_only_adds_validation_documents(key, one, other):
    low, high = sorted([one, other])
    assert split_of(key, low) == "train" or split_of(key, high) == "validation"


def test_split_of_known_keys_does_not_change():
    keys = [f"{i}.py" for i in range(60)]
    assert [key for key in keys if split_of(key, 0.05) == "validation"] == ["8.py", "27.py", "35.py", "43.py", "46.py"]


@pytest.mark.parametrize("share", [0, 1, -0.1, "a", None, True, float("nan")])
def test_wrong_share_is_refused(share):
    with pytest.raises(UserError, match=r"data\.validation_share"):
        data_group({"validation_share": share})


def test_a_long_file_is_cut_at_one_place() -> None:
    lengths = [np.full(1000, 2000), np.full(500, 1500)]
    assert training_documents(lengths, 0.05) == [950, 475]


def test_short_files_stay_whole_and_meet_the_share() -> None:
    counts = training_documents([np.full(3, 1000)] * 400, 0.05)
    assert set(counts) == {0, 3} and counts.count(0) == 20


@pytest.mark.parametrize("files", [[[900, 900]], [[1000] * 5, [1000] * 9], [[500], [700]], [[5000]], [[], [10, 10]]])
def test_a_few_short_files_give_something_to_validation(files: list[list[int]]) -> None:
    counts = training_documents([np.array(lengths, np.int64) for lengths in files], 0.05)
    kept = [len(lengths) - count for lengths, count in zip(files, counts, strict=True)]
    assert sorted(kept)[-1] == 1 and sum(kept) == 1


@given(
    st.lists(st.lists(st.integers(1, 9000), max_size=60), min_size=1, max_size=30), st.sampled_from([0.01, 0.05, 0.3])
)
def test_no_file_gives_more_documents_than_it_has(files: list[list[int]], share: float) -> None:
    counts = training_documents([np.array(lengths, np.int64) for lengths in files], share)
    assert all(0 <= count <= len(lengths) for count, lengths in zip(counts, files, strict=True))
    assert not any(files) or any(count < len(lengths) for count, lengths in zip(counts, files, strict=True))


def test_groups_stay_together_and_meet_the_share() -> None:
    groups = [[(f"{group}-{member}", 100 + group) for member in range(1 + group % 3)] for group in range(400)]
    splits = grouped_split(groups, 0.05)
    assert len(splits) == sum(map(len, groups))
    assert all(len({splits[name] for name, _ in group}) == 1 for group in groups)
    sizes = dict(document for group in groups for document in group)
    share = sum(size for name, size in sizes.items() if splits[name] == "validation") / sum(sizes.values())
    assert 0.05 <= share < 0.06


def test_a_large_group_is_used_in_part() -> None:
    groups = [[(f"table {i}", 50) for i in range(100)], *([(f"file {i}", 100)] for i in range(100))]
    splits = grouped_split(groups, 0.05)
    assert sum(name.startswith("table") for name in splits) == 6  # 2 % of 15,000 characters
    assert {split for name, split in splits.items() if name.startswith("table")} == {"train"}
