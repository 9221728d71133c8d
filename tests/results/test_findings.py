from __future__ import annotations

from dataclasses import replace

import made
import pandas as pd
import pytest

from trainlarge.results.finding import Finding, last_budget, listed
from trainlarge.results.findings import findings, summary
from trainlarge.results.findings_of_compression import (
    beats_dense,
    compression_findings,
    equal_bytes,
    larger_loses_less,
    nearest_to_dense,
    recipe_pairs,
)
from trainlarge.results.findings_of_training import (
    best_sizes,
    changed_places,
    clocks,
    noise,
    not_overtaken,
    training_findings,
)
from trainlarge.results.frames import StudyFrames


def texts(found: list[Finding], kind: bool) -> str:
    return "\n".join(finding.text for finding in found if finding.found is kind)


def with_losses(cells: pd.DataFrame, losses: dict[str, tuple[float, ...]]) -> pd.DataFrame:
    """The cells with other losses: one for each budget of a series."""
    places = {budget: index for index, budget in enumerate(made.BUDGETS)}
    return cells.assign(loss=[losses[row.series][places[row.budget_value]] for row in cells.itertuples()])


def test_the_best_size_is_named_from_where_to_where(frames: StudyFrames) -> None:
    (finding,) = best_sizes(frames.cells, "model_seconds")
    assert (
        finding.text
        == "At equal training time, lowest loss: d64/L2 from 7.5 s to 30 s; d64/L2 and d128/L2 tie at 60 s."
    )
    (finding,) = best_sizes(frames.cells, "step")
    assert "lowest loss: d128/L2 from" in finding.text


def test_a_crossing_is_told_with_its_bracket_and_margins(frames: StudyFrames) -> None:
    (finding,) = changed_places(frames.cells, "model_seconds")
    assert finding.found
    assert finding.text.startswith("d128/L2 overtakes d64/L1 between 15 s and 60 s of equal training time, near 38 s")
    assert "0.14 nats behind, then 0.14 ahead" in finding.text


def test_what_never_overtakes_is_told(frames: StudyFrames) -> None:
    told = texts(not_overtaken(frames.cells, "model_seconds"), False)
    assert "d128/L2 does not overtake d64/L2 at equal training time by 60 s: 0.08 nats behind (a tie)" in told
    assert "at 7.5 s it was 0.16 behind" in told
    assert "No size clearly overtakes another" in texts(not_overtaken(frames.cells, "step"), False)


def test_the_other_way_round_other_sentences_come(frames: StudyFrames) -> None:
    losses = {"d64/L1": (3.0, 2.9, 2.8, 2.7), "d64/L2": (3.5, 3.05, 2.5, 2.2), "d128/L2": (4.0, 3.5, 2.55, 1.5)}
    cells = with_losses(frames.cells, losses)
    (finding,) = best_sizes(cells, "model_seconds")
    assert finding.text.endswith(
        "lowest loss: d64/L1 from 7.5 s to 15 s; d64/L2 and d128/L2 tie at 30 s; d128/L2 at 60 s."
    )
    told = texts(changed_places(cells, "model_seconds"), True)
    assert "d64/L2 overtakes d64/L1 and takes the lead" in told
    assert "d128/L2 overtakes d64/L2 and takes the lead" in told
    assert not_overtaken(cells, "model_seconds") == []


def test_one_seed_is_said(frames: StudyFrames) -> None:
    assert noise(frames.cells).text == "One seed: differences below 0.1 nats are called ties."
    other = pd.concat([frames.cells, frames.cells.assign(seed=1)])
    assert noise(other).text.startswith("2 seeds, whose mean losses are compared")


def test_one_size_only_is_nothing_to_compare(frames: StudyFrames) -> None:
    only = frames.cells[frames.cells["shape"] == "d64/L1"]
    (finding,) = training_findings(only)
    assert not finding.found
    assert "Only d64/L1 was trained" in finding.text


def test_times_of_two_devices_are_not_compared(frames: StudyFrames) -> None:
    mixed = frames.cells.assign(device_name=["A", "B"] * 6)
    told = training_findings(mixed)
    assert "Training times are not compared: cells differ in device_name (A in 6 cells, B in 6)." in texts(told, False)
    assert "equal training time" not in texts(told, True)


def test_disturbed_clocks_are_told(frames: StudyFrames) -> None:
    assert clocks(frames.cells) == []
    disturbed = frames.cells.assign(disturbance=[0.8, 1.2] * 6)
    assert "0.80 to 1.20 times the modelled one" in texts(clocks(disturbed), False)


def test_larger_loses_less_is_counted(frames: StudyFrames) -> None:
    counts, example = larger_loses_less(frames.compression)
    assert counts.found and example.found
    pairs = recipe_pairs(frames.compression, "d64/L1", "d128/L2")
    assert f"({len(pairs)} comparisons" in counts.text
    assert "more in 0" in counts.text
    assert "(d64/L1)" in example.text and "(d128/L2)" in example.text


def test_when_larger_loses_more_it_is_not_found(frames: StudyFrames) -> None:
    turned = frames.compression.assign(loss_increase=lambda some: some["loss_increase"] * some["parameters"] / 1e5)
    told = larger_loses_less(turned)
    assert not any(finding.found for finding in told)
    assert "So larger models do not lose less here." in texts(told, False)


def test_destroyed_models_and_dense_ones_prove_nothing(frames: StudyFrames) -> None:
    pairs = recipe_pairs(frames.compression, "d64/L1", "d128/L2")
    assert "dense" not in set(pairs["recipe"])
    assert (pairs[["small", "large"]].min(axis=1) < 2.0).all()


def test_recipes_that_change_shapes_alone_are_compared(frames: StudyFrames) -> None:
    pruned = frames.compression["recipe"].ne("dense") & frames.compression["bits"].eq(32)
    heads = frames.compression[pruned].assign(sparsity=0.0, structure="heads", recipe="half of the heads")
    assert not recipe_pairs(heads, "d64/L1", "d128/L2").empty


def test_nothing_that_works_is_said(frames: StudyFrames) -> None:
    destroyed = frames.compression.assign(loss_increase=5.0)
    (told,) = equal_bytes(destroyed)
    assert not told.found and "below 1 nat" in told.text


def test_equal_bytes_names_winners_and_those_who_never_win(frames: StudyFrames) -> None:
    won, never = equal_bytes(frames.compression)
    assert "d64/L2 from 120 kB to 632 kB" in won.text
    assert never.text == "d128/L2 clearly wins at no file size after 60 s."


def test_a_large_model_that_wins_at_equal_bytes_is_found(frames: StudyFrames) -> None:
    better = frames.compression["series"] == "d128/L2"
    shifted = frames.compression.assign(
        loss=frames.compression["loss"] - 0.5 * better, dense_loss=frames.compression["dense_loss"] - 0.5 * better
    )
    (won,) = [finding for finding in equal_bytes(shifted) if "d128/L2" in finding.text and finding.found]
    assert "d128/L2 from" in won.text and won.text.endswith("up.")
    told = texts(beats_dense(shifted), True)
    assert "d128/L2 after 60 s" in told
    assert "is smaller and better than d64/L2 dense (2.31" in told


def test_no_larger_model_beats_the_best_dense_one_here(frames: StudyFrames) -> None:
    found, not_found = beats_dense(frames.compression)
    assert "smaller and better than d64/L1 dense" in found.text
    assert not_found.text.startswith(
        "No larger model compresses to something smaller and better than d64/L2 dense (2.31"
    )


def test_nearest_to_dense_gives_the_factor(frames: StudyFrames) -> None:
    (finding,) = nearest_to_dense(frames.compression)
    assert finding.found
    assert "times fewer bytes" in finding.text
    only_dense = frames.compression[frames.compression["recipe"] == "dense"]
    assert not nearest_to_dense(only_dense)[0].found


def test_nothing_compressed_is_said(frames: StudyFrames) -> None:
    (finding,) = compression_findings(frames.compression.iloc[:0])
    assert finding.text == "Nothing was compressed yet."


def test_all_findings_are_sentences(frames: StudyFrames) -> None:
    told = findings(frames)
    assert {finding.found for finding in told} == {True, False}
    assert all(str(finding).endswith(".") and "nan" not in str(finding).lower().split() for finding in told)
    assert all(sentence.text in {finding.text for finding in told} for sentence in told)
    assert "At equal training time" in summary(frames)


def test_losses_that_cannot_be_compared_give_one_sentence(frames: StudyFrames) -> None:
    mixed = replace(frames, cells=frames.cells.assign(evaluation_fingerprint=["a", "b"] * 6))
    (finding,) = findings(mixed)
    assert "Losses are not compared: cells differ in evaluation_fingerprint" in finding.text


@pytest.mark.parametrize(("words", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_listed(words: list[str], text: str) -> None:
    assert listed(words) == text


def test_the_last_budget_is_one_that_all_series_have(frames: StudyFrames) -> None:
    without = frames.cells[(frames.cells["series"] != "d128/L2") | (frames.cells["budget_value"] < 60)]
    assert set(last_budget(without)["budget"]) == {"30 s"}


def test_times_of_cells_that_shared_a_device_are_left_out_and_that_is_said(frames: StudyFrames) -> None:
    some = training_findings(frames.cells.assign(per_device=[2] * 4 + [1] * 8))
    assert "Training times of 4 of 12 cells are left out: they shared a device (launcher.per_device)." in texts(
        some, False
    )
    assert "At equal training time" in texts(some, True)
    both = training_findings(frames.cells.assign(per_device=[2] * 4 + [1] * 8, mixed=[True] * 5 + [False] * 7))
    assert "Training times of 1 of 12 cells are left out: a resume changed their device or implementation." in texts(
        both, False
    )
    every = training_findings(frames.cells.assign(per_device=2))
    assert "12 of 12 cells" in texts(every, False) and "At equal FLOPs" in texts(every, True)
    assert "training time" not in texts(every, True)
    assert "left out" not in texts(training_findings(frames.cells), False)
