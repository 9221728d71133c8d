from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.config.arch import ArchConfig
from trainlarge.config.canonical import canonical_json
from trainlarge.config.data import DataConfig
from trainlarge.config.group import as_plain, is_group
from trainlarge.config.identity import added_fields, field_names
from trainlarge.config.method import METHODS
from trainlarge.config.optim import OptimConfig
from trainlarge.config.plain import from_plain, to_plain
from trainlarge.config.prune import Magnitude
from trainlarge.config.quantize import Uniform
from trainlarge.config.recipe import Recipe
from trainlarge.config.schema import CONFIGS, CompressConfig, StageConfig, TrainConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.sweep.cell import Cell

DATA = DataConfig("text", files=("x.txt",), split="documents", fingerprint="0123456789abcdef")
CONFIG = TrainConfig(
    study="a", data=DATA, arch=ArchConfig("modern", width=64, ffn_ratio=4.0), budget="2e+12 FLOPs", workers=1
)
LATER = replace(
    CONFIG,
    clock="real",
    budget="30 s",
    data=replace(DATA, split="grouped", fraction=0.05, encoding="latin-1", separator=";"),
    optim=OptimConfig(batch_rule="table", batch_lr=((2048, 3e-3),), base_batch=1024),
)
"""Every key that was added later has another value than before."""
COMPRESS = CompressConfig(study="a", checkpoint="0123456789ab")
RECIPE = Recipe(Magnitude(0.5), Uniform(4, embedding_bits=8), order=("quantize", "prune"))
TEXT = {"data": DATA, "task": MaskedLMConfig()}
FOLDER = replace(COMPRESS, checkpoint="/a/b", checkpoint_digest="f" * 16, recipe=RECIPE, **TEXT)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def test_ids_are_pinned() -> None:
    assert Cell("train", CONFIG).id == "9f4ca5d6ebfd" and Cell("train", LATER).id == "793463c45096"
    assert Cell("compress", COMPRESS).id == "2e1b8a21c8e8" and Cell("compress", FOLDER).id == "22fecd749a7a"


@pytest.mark.parametrize("cell", [Cell("train", LATER), Cell("compress", COMPRESS), Cell("compress", FOLDER)])
def test_an_id_is_the_hash_of_the_canonical_json_of_the_whole_identity(cell: Cell) -> None:
    assert hashlib.sha256(canonical_json(cell.identity).encode()).hexdigest().startswith(cell.id)


@pytest.mark.parametrize("key", ["study", "impl", "tracking", "launcher", "workers", "redo"])
def test_what_cannot_change_a_result_does_not_change_the_id(key: str) -> None:
    assert Cell("train", replace(CONFIG, **{key: "something else"})).id == Cell("train", CONFIG).id


def test_where_the_data_lies_does_not_change_the_id_but_its_content_does() -> None:
    moved = replace(CONFIG, data=replace(DATA, files=("/elsewhere/x.txt",)))
    other = replace(CONFIG, data=replace(DATA, fingerprint="f" * 16))
    assert Cell("train", moved).id == Cell("train", CONFIG).id != Cell("train", other).id
    elsewhere, changed = replace(FOLDER, checkpoint="/c"), replace(FOLDER, checkpoint_digest="0" * 16)
    assert Cell("compress", elsewhere).id == Cell("compress", FOLDER).id != Cell("compress", changed).id


@pytest.mark.parametrize(("group", "key"), [("arch", "width"), ("arch", "heads"), ("task", "evaluation_rows")])
def test_every_key_of_the_science_changes_the_id(group: str, key: str) -> None:
    changed = replace(CONFIG, **{group: replace(getattr(CONFIG, group), **{key: 7})})
    assert Cell("train", changed).id != Cell("train", CONFIG).id


def added_keys(stage: str) -> Iterator[tuple[str, str, Any]]:
    """Group ("" for the whole configuration), key and value from before, of every key that was added later."""
    hints = {name: (hint, *get_args(hint)) for name, hint in get_type_hints(CONFIGS[stage]).items()}
    groups = {name: next(filter(is_group, parts), None) for name, parts in hints.items()}
    for group, kind in {"": CONFIGS[stage], **groups}.items():
        for key, value in added_fields(kind).items() if kind else ():
            yield group, key, as_plain(value)


@pytest.mark.parametrize("config", [CONFIG, LATER, FOLDER])
def test_a_key_that_was_added_later_has_the_same_id_without_it(config: StageConfig) -> None:
    stage = "train" if isinstance(config, TrainConfig) else "compress"
    found = list(added_keys(stage))
    assert ("data", "fraction", 1.0) in found
    for group, key, before in found:
        written = to_plain(config)
        keys: dict[str, Any] = dict(written[group]) if group else written
        without = {name: value for name, value in keys.items() if name != key}
        old = from_plain(type(config), {**written, group: without} if group else without)
        same = from_plain(type(config), {**written, group: {**keys, key: before}} if group else {**keys, key: before})
        assert old == same and Cell(stage, old).id == Cell(stage, same).id
        science = Cell(stage, old).identity["config"]
        assert key not in (science.get(group, {}) if group else science)


@pytest.mark.parametrize(("slot", "name"), [(slot, name) for slot in METHODS for name in METHODS[slot]])
def test_a_field_that_was_added_to_a_method_later_is_not_written_while_it_says_what_was_done_before(
    slot: str, name: str
) -> None:
    kind = METHODS[slot][name]
    needed = {"sparsity": 0.5, "bits": 4, "keep": 0.5, "rank": 3, "size": 9, "layers": [0, 1], "tokens": [4, 5]}
    needed |= {"threshold": 0.1}
    part = kind(**{key: value for key, value in needed.items() if key in field_names(kind)})
    assert not added_fields(kind).keys() & part.to_json().keys()


def test_stages_have_different_ids() -> None:
    assert Cell("train", CONFIG).id != Cell("compress", CONFIG).id  # type: ignore[arg-type]


@given(st.dictionaries(st.text(), PLAIN))
def test_order_of_keys_does_not_matter(data: dict[str, Any]) -> None:
    assert canonical_json(data) == canonical_json(dict(reversed(data.items())))


@pytest.mark.parametrize("foreign", [float("nan"), float("inf"), {1: 2}, (1, 2), {1, 2}, object(), b"bytes", 1j])
def test_what_is_not_plain_data_is_refused(foreign: Any) -> None:
    with pytest.raises(TypeError, match=r"configuration\.deep\[0\]"):
        canonical_json({"deep": [foreign]})
