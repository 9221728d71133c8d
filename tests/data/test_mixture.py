"""Several sources as one corpus, mixed by weight."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groups import data_group
from trainlarge.config.data import DataConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.data.blocks import Blocks
from trainlarge.data.corpus import corpus
from trainlarge.data.fingerprint import fingerprint, resolved_data
from trainlarge.data.mixed_blocks import MixedBlocks, rows_by_weight, source_seed
from trainlarge.data.prepare import prepare
from trainlarge.data.rows_in_use import rows_in_use
from trainlarge.errors import UserError
from trainlarge.models.forward import FORWARDS
from trainlarge.tasks.masked_lm import MaskedLM

LENGTH = 4
COUNTS = st.lists(st.integers(1, 30), min_size=1, max_size=4)


def mixed(counts: list[int], weights: list[float | None], seed: int = 0) -> MixedBlocks:
    """Blocks whose first id says which source they are of, and whose second which block of it."""
    sources = []
    for place, count in enumerate(counts):
        blocks = np.zeros((count, LENGTH), np.uint16)
        blocks[:, 0], blocks[:, 1] = place, np.arange(count)
        sources.append(Blocks(blocks.reshape(-1), LENGTH, source_seed(seed, place)))
    names = [f"s{place}" for place in range(len(counts))]
    rows = rows_by_weight(dict(zip(names, counts, strict=True)), dict(zip(names, weights, strict=True)))
    return MixedBlocks(tuple(sources), tuple(rows.values()), seed)


@given(COUNTS, st.integers(0, 2**32), st.integers(1, 9))
def test_without_weights_every_block_comes_once_per_epoch(counts, seed, rows):
    blocks = mixed(counts, [None] * len(counts), seed)
    steps = -(-2 * len(blocks) // rows)
    stream = np.concatenate([blocks.batch(step, rows) for step in range(steps)])[: 2 * len(blocks)]
    everything = [(place, block) for place, count in enumerate(counts) for block in range(count)]
    for epoch in np.split(stream, 2):
        assert sorted(map(tuple, epoch[:, :2])) == everything


@given(COUNTS, st.data(), st.integers(0, 2**32))
def test_a_weight_is_the_exact_share_of_an_epoch_and_every_block_has_its_turn(counts, data, seed):
    weights = [data.draw(st.floats(0.5, 2)) for _ in counts]
    try:
        blocks = mixed(counts, weights, seed)
    except UserError:
        return  # so few rows that a source would give none
    stream = blocks.batch(0, 5 * len(blocks))
    for epoch in np.split(stream, 5):
        drawn = Counter(epoch[:, 0].tolist())
        for place, weight in enumerate(weights):
            assert abs(drawn[place] - weight / sum(weights) * len(blocks)) < 1
    for place, count in enumerate(counts):
        turns = Counter(stream[stream[:, 0] == place, 1].tolist())
        assert max(turns.values()) - min(turns[block] for block in range(count)) <= 1


@given(COUNTS, st.integers(0, 40), st.integers(1, 9), st.integers(1, 4))
def test_a_batch_is_a_pure_function_of_seed_and_step(counts, step, rows, parts):
    weights = [1.0 + place for place in range(len(counts))]
    try:
        one, other = mixed(counts, weights, 5), mixed(counts, weights, 5)
    except UserError:
        return
    other.batch(step + 3, rows)
    whole = one.batch(step, rows * parts)
    np.testing.assert_array_equal(whole, np.concatenate([other.batch(step * parts + i, rows) for i in range(parts)]))


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 1000), min_size=1))
def test_rows_of_an_epoch_sum_to_the_blocks(blocks):
    weights: dict[str, float | None] = {name: 1.0 + place for place, name in enumerate(blocks)}
    try:
        rows = rows_by_weight(blocks, weights)
    except UserError:
        return
    assert sum(rows.values()) == sum(blocks.values()) and min(rows.values()) >= 1


def test_a_weight_that_gives_no_row_is_refused():
    with pytest.raises(UserError, match=r"^data\.sources\.b\.weight=1e-06 is not valid: must be at least about"):
        rows_by_weight({"a": 100, "b": 100}, {"a": 1.0, "b": 1e-6})


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Two sources in two formats, whose texts have no word in common."""
    folder = tmp_path_factory.mktemp("sources")
    Path(folder / "a.txt").write_text("\n\n".join(f"alpha {i} " + "aa ab ac ad " * 60 for i in range(60)))
    rows = "\n".join(f'{{"body": "beta {i} {"zz zy zx zw " * 60}"}}' for i in range(200))
    Path(folder / "b.jsonl").write_text(rows)
    return {
        "first": {"files": [str(folder / "a.txt")], "weight": 3},
        "second": {"files": [str(folder / "b.jsonl")], "text_column": "body", "weight": 1},
    }


def group(sources: dict[str, dict[str, object]], **keys: object) -> DataConfig:
    return data_group({"name": "text", "sources": sources, "vocab_size": 270, "sequence_length": 16, **keys})


def test_rows_of_real_sources_come_by_weight(sources, tmp_path):
    data = resolved_data(group(sources))
    prepared = prepare(data, tmp_path)
    assert sum(prepared.sources.values()) == len(prepared.train)
    facts = prepared.facts
    assert facts is not None
    assert {name: source.train.tokens for name, source in facts.sources.items()} == prepared.sources
    assert facts.rows.train.rows == sum(source.rows.train.rows for source in facts.sources.values())
    assert [line for line in facts.lines() if line.startswith("data: second: ")]
    task = MaskedLM(MaskedLMConfig(), data, FORWARDS["fast"])
    blocks = task.blocks(prepared, seed=3)
    assert len(blocks) == task.training_rows(prepared, 4) == rows_in_use(data, MaskedLMConfig(), tmp_path)
    own = set(np.asarray(prepared.train[: prepared.sources["first"]])) - {prepared.sep_id}
    other = set(np.asarray(prepared.train[prepared.sources["first"] :])) - {prepared.sep_id}
    epoch = blocks.batch(0, len(blocks))
    is_first = np.array([len(own & set(row)) > len(other & set(row)) for row in epoch.tolist()])
    assert abs(is_first.sum() - 0.75 * len(blocks)) <= 1
    np.testing.assert_array_equal(task.batch(prepared, 3, 0, 8)["labels"], task.batch(prepared, 3, 0, 8)["labels"])
    assert len(blocks.spread(64)) == 64


def test_weights_are_in_the_identity_but_not_in_the_contents(sources):
    one = resolved_data(group(sources))
    heavier = {**sources, "second": {**sources["second"], "weight": 9}}
    other = resolved_data(group(heavier))
    assert one.fingerprint == other.fingerprint and one.identity_json != other.identity_json
    assert str(sources["first"]["files"]) not in one.identity_json
    assert resolved_data(group(dict(reversed(sources.items())))).identity_json == one.identity_json
    assert fingerprint(group({"other": sources["first"], "second": sources["second"]})) != one.fingerprint


def test_a_file_that_one_source_trains_on_and_another_holds_out_is_refused(sources, tmp_path):
    copy = tmp_path / "copy.txt"
    copy.write_bytes(Path(sources["first"]["files"][0]).read_bytes())
    second = {**sources["second"], "validation_files": [str(copy)]}
    allowed = r"must be files whose contents are not trained on, as those of data\.sources\.first\.files are$"
    with pytest.raises(
        UserError, match=rf"^data\.sources\.second\.validation_files=.*copy\.txt is not valid: {allowed}"
    ):
        resolved_data(group({**sources, "second": second}))


def test_without_sources_the_identity_is_that_of_before():
    assert "sources" not in DataConfig().identity and "evaluations" not in DataConfig().identity


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"weight": -1}, r"data\.sources\.second\.weight=-1\.0 is not valid: must be a number above 0"),
        ({"weight": None}, r"data\.sources\.second\.weight=null is not valid: must be a number above 0 where"),
        ({"files": []}, r"data\.sources\.second\.files=\[\] is not valid: must be a list of files"),
        ({"files": ["no/such"]}, r"data\.sources\.second\.files=no/such is not valid: must be an existing file"),
        ({"wieght": 1}, r"data\.sources\.second\.wieght=1 is not valid: no such key"),
        ({"text_column": "c"}, r"data\.sources\.second\.text_column=c is not valid: must be one of the columns body"),
        ({"hub": "a/b"}, r"data\.sources\.second\.hub=a/b is not valid: must be null with files"),
    ],
)
def test_a_wrong_source_is_told_in_one_line(sources, change, error):
    with pytest.raises(UserError, match=f"^{error}") as caught:
        list(corpus(group({**sources, "second": {**sources["second"], **change}})).documents("train"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"files": ["a.txt"]}, r"data\.files=.* must be empty with data\.sources"),
        ({"hub": "a/b"}, r"data\.hub=a/b is not valid: must be empty with data\.sources"),
        ({"name": "stdlib"}, r"data=stdlib is not valid: must be text with data\.sources"),
    ],
)
def test_keys_beside_sources(sources, keys, error):
    with pytest.raises(UserError, match=f"^{error}"):
        group(sources, **keys)


def test_source_that_cannot_be_reached_names_its_key(sources):
    data = group({**sources, "web": {"hub": "trainlarge-tests/there-is-no-such-data-set", "weight": 1}})
    with pytest.raises(UserError, match=r"^data\.sources\.web\.hub=.* with a network to reach it"):
        fingerprint(data)


def test_source_name_that_is_no_column():
    with pytest.raises(UserError, match=r"^data\.sources=My Wiki is not valid"):
        group({"My Wiki": {"files": ["a.txt"]}})
