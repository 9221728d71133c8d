from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.sweep.cell import Cell, canonical_json, with_later_keys

CONFIG: dict[str, Any] = {
    "study": "a",
    "seed": 0,
    "task": {"name": "mlm", "mask_rate": 0.15},
    "data": {"name": "text", "files": ["x.txt"], "validation_files": [], "fingerprint": "0123456789abcdef"},
    "arch": {"name": "modern", "width": 64, "depth": 2},
    "budget": "2e+12 FLOPs",
    "impl": {"precision": "auto"},
    "tracking": {"name": "none"},
    "launcher": {"name": "local"},
    "workers": 1,
    "redo": False,
    "sweep": {"blocks": []},
}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def test_ids_are_pinned() -> None:
    assert Cell("train", CONFIG).id == "532037682bfc"
    assert (
        Cell("compress", {"study": "a", "seed": 0, "checkpoint": "0123456789ab", "prune": {"name": "none"}}).id
        == "08369234d4f1"
    )


@pytest.mark.parametrize("key", ["study", "impl", "tracking", "launcher", "workers", "redo", "sweep"])
def test_what_cannot_change_a_result_does_not_change_the_id(key: str) -> None:
    assert Cell("train", {**CONFIG, key: "something else"}).id == Cell("train", CONFIG).id


def test_where_the_data_lies_does_not_change_the_id_but_its_content_does() -> None:
    moved = {**CONFIG, "data": {**CONFIG["data"], "files": ["/elsewhere/x.txt"]}}
    other = {**CONFIG, "data": {**CONFIG["data"], "fingerprint": "f" * 16}}
    assert Cell("train", moved).id == Cell("train", CONFIG).id != Cell("train", other).id


@pytest.mark.parametrize(("group", "key"), [("arch", "width"), ("task", "mask_rate"), ("arch", "a new default")])
def test_every_key_of_the_science_changes_the_id(group: str, key: str) -> None:
    changed = copy.deepcopy(CONFIG)
    changed[group][key] = 7
    assert Cell("train", changed).id != Cell("train", CONFIG).id


def test_a_key_that_came_later_changes_no_id_that_was_there_before() -> None:
    whole = {**CONFIG, "data": {**CONFIG["data"], "fraction": 1.0}}
    part = {**CONFIG, "data": {**CONFIG["data"], "fraction": 0.05}}
    assert Cell("train", whole).id == Cell("train", CONFIG).id != Cell("train", part).id
    assert Cell("train", with_later_keys(CONFIG)).id == Cell("train", CONFIG).id
    assert with_later_keys(CONFIG)["data"]["fraction"] == 1.0 and with_later_keys(part)["data"]["fraction"] == 0.05
    assert {**with_later_keys(part), "data": part["data"]} == {**with_later_keys(CONFIG), "data": part["data"]}


def test_stages_have_different_ids() -> None:
    assert Cell("train", CONFIG).id != Cell("compress", CONFIG).id


@given(st.dictionaries(st.text(), PLAIN))
def test_order_of_keys_does_not_matter(data: dict[str, Any]) -> None:
    assert canonical_json(data) == canonical_json(dict(reversed(data.items())))


@pytest.mark.parametrize("foreign", [float("nan"), float("inf"), {1: 2}, (1, 2), {1, 2}, object(), b"bytes", 1j])
def test_what_is_not_plain_data_is_refused(foreign: Any) -> None:
    with pytest.raises(TypeError, match=r"configuration\.deep\[0\]"):
        canonical_json({"deep": [foreign]})
