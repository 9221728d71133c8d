from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import made
from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.document_losses import DocumentLosses, DocumentSums, Sample
from trainlarge.results.frames import StudyFrames, load_study
from trainlarge.results.report.caveats import caveats
from trainlarge.results.report.finding import Finding, listed
from trainlarge.results.report.findings import findings, method, summary
from trainlarge.results.report.findings_of_compression import (
    beats_dense,
    compression_findings,
    equal_bytes,
    larger_loses_less,
    nearest_to_dense,
)
from trainlarge.results.report.findings_of_training import (
    best_sizes,
    changed_places,
    clocks,
    not_overtaken,
    per_step,
    training_findings,
)
from trainlarge.results.series import last_budget


def texts(found: list[Finding], kind: bool) -> str:
    return "\n".join(finding.text for finding in found if finding.is_result is kind)


def every(found: list[Finding]) -> str:
    return "\n".join(map(str, found))


class Known(DocumentLosses):
    """Losses per document that fit changed losses: each of 40 equal documents differs by a little noise."""

    def __init__(self, frames: StudyFrames, noise: float = 0.05) -> None:
        super().__init__()
        object.__setattr__(self, "frames", frames)
        object.__setattr__(self, "noise", noise)

    def sample(self, stage: str, cells: object) -> Sample:
        frame = {"train": self.frames.cells, "compress": self.frames.compression}[stage]
        wanted, found = set(cells), Sample()  # type: ignore[call-overload]
        for row in frame[frame["cell"].isin(wanted)].to_dict("records"):
            name = f"{row['series']} {row['budget']} {row['seed']}"
            own = np.random.default_rng(list(name.encode())).normal(0, self.noise, 40)
            own -= own.mean()
            content = {key: 10 * (row[key] + own) for key in ("loss", "dense_loss") if key in row}
            found.add(row["cell"], DocumentSums(list(range(40)), np.full(40, 10.0), **content))
        return found


def changed(frames: StudyFrames, noise: float = 0.05, **tables: pd.DataFrame) -> Evidence:
    """The evidence of frames of which some are others, with losses per document that fit."""
    some = replace(frames, **tables)
    return Evidence(replace(some, documents=Known(some, noise)))


def with_losses(cells: pd.DataFrame, losses: dict[str, tuple[float, ...]]) -> pd.DataFrame:
    """The cells with other losses: one for each budget of a series."""
    places = {budget: index for index, budget in enumerate(made.BUDGETS)}
    return cells.assign(loss=[losses[row.series][places[row.budget_value]] for row in cells.itertuples()])


def with_seeds(frame: pd.DataFrame, seeds: int, noise: float = 0.01) -> pd.DataFrame:
    """The rows once for each seed, with losses that differ a little."""
    copies = []
    for seed in range(seeds):
        shift = np.random.default_rng(seed).normal(0, noise, len(frame))
        ids = {name: _renamed(frame[name], seed) for name in ("cell", "parent") if name in frame}
        copies.append(frame.assign(seed=seed, loss=frame["loss"] + shift, **ids))
    return pd.concat(copies, ignore_index=True)


def _renamed(ids: pd.Series, seed: int) -> pd.Series:
    return ids.map(lambda name: f"{int(name, 16) ^ (seed << 44):012x}")


@pytest.fixture(scope="module")
def evidence(frames: StudyFrames) -> Evidence:
    return Evidence(frames)


@pytest.fixture(scope="module")
def old(made_study: object, tmp_path_factory: pytest.TempPathFactory) -> StudyFrames:
    """Frames of a study of before there were losses per document."""
    return load_study(made.make_study(tmp_path_factory.mktemp("old") / "old", documents=False))


def test_the_best_size_is_named_with_all_that_are_compared_and_the_last_lead(evidence: Evidence) -> None:
    (finding,) = best_sizes(evidence, "model_seconds")
    assert finding.text.startswith(
        "At equal training time (d64/L1, d64/L2 and d128/L2), lowest measured loss: "
        "d64/L2 from 7.5 s to 30 s; d64/L2 or d128/L2 at 60 s. At 60 s, d64/L2 is ahead of d128/L2 by 0.08 nats "
        "(95 % interval over documents "
    )
    assert finding.text.endswith("; order not tested: one seed).")
    (finding,) = best_sizes(evidence, "step")
    assert "lowest measured loss: d128/L2 from" in finding.text


def test_with_one_seed_nothing_is_clear(frames: StudyFrames, evidence: Evidence) -> None:
    told = findings(frames)
    assert "clearly" not in every(told) and "; clear" not in every(told) and evidence.family.tested == 0
    assert str(told[0]).startswith("One seed per size: which size is better was not tested")
    assert summary(frames).startswith("One seed per size")


def test_with_seeds_a_change_of_places_is_clear_or_not(frames: StudyFrames) -> None:
    losses = {"d64/L1": (3.0, 2.9, 2.8, 2.7), "d64/L2": (3.5, 3.05, 2.5, 2.2), "d128/L2": (4.0, 3.5, 2.55, 1.5)}
    cells = with_seeds(with_losses(frames.cells, losses), 4)
    evidence = changed(frames, cells=cells)
    told = texts(changed_places(evidence, "model_seconds"), True)
    assert "d64/L2 clearly overtakes d64/L1 near" in told and "d128/L2 clearly overtakes d64/L2 near" in told
    assert "at 7.5 s 0.50 nats behind (95 % interval" in told and "; clear), at 60 s" in told
    assert not_overtaken(evidence, "model_seconds") == []
    assert "One seed" not in every(caveats(evidence))
    noisy = changed(frames, cells=with_seeds(with_losses(frames.cells, losses), 4, noise=1.0))
    assert "clearly" not in every(training_findings(noisy)) and "not clear" in every(training_findings(noisy))


def test_measured_lines_that_cross_are_told_as_measured(evidence: Evidence) -> None:
    (finding,) = changed_places(evidence, "model_seconds")
    assert not finding.is_result
    assert "d128/L2 falls below d64/L1 near 38 s: at 7.5 s 0.06 nats behind (95 % interval" in finding.text
    assert "at 60 s 0.14 nats ahead" in finding.text and finding.text.endswith("order not tested: one seed.")


def test_what_stays_behind_is_told(evidence: Evidence) -> None:
    told = texts(not_overtaken(evidence, "model_seconds"), False)
    assert "d128/L2 does not overtake d64/L2 by 60 s at equal training time: 0.08 nats behind (95 % interval" in told
    assert "at 7.5 s, 0.16 nats behind" in told


def test_sizes_that_are_compared_in_turn_have_sentences_of_their_own(frames: StudyFrames) -> None:
    steps = {"d64/L1": 1.0, "d64/L2": 5.0, "d128/L2": 25.0}
    cells = frames.cells.assign(flops=[1e9 * steps[row.series] * row.budget_value for row in frames.cells.itertuples()])
    found = best_sizes(changed(frames, cells=cells), "flops")
    assert len(found) == 2
    assert found[0].text.startswith("At equal FLOPs (d64/L1 and d64/L2, 2 of 3 sizes), lowest measured loss: ")
    assert found[1].text.startswith("At equal FLOPs (d64/L2 and d128/L2, 2 of 3 sizes), lowest measured loss: ")
    assert "d128/L2" not in found[0].text and "d64/L1" not in found[1].text


def test_trunks_say_whether_larger_is_better_per_step(frames: StudyFrames, evidence: Evidence) -> None:
    (finding,) = per_step(evidence)
    assert "each larger size has the lower loss at 4 of 5 points" in finding.text and finding.is_result
    assert "3.67 (d64/L1), 3.36 (d64/L2) and 3.07 (d128/L2) nats at 1,600 steps" in finding.text
    turned = frames.curves.assign(loss=10 - frames.curves["loss"])
    frequency = frames.cells.assign(frequency_loss=20.0)
    assert not per_step(Evidence(replace(frames, curves=turned, cells=frequency)))[0].is_result
    batches = frames.cells.assign(batch=[1024, 2048] * 6)
    assert per_step(Evidence(replace(frames, cells=batches))) == []


def test_one_size_only_is_nothing_to_compare(frames: StudyFrames) -> None:
    only = frames.cells[frames.cells["shape"] == "d64/L1"]
    (finding,) = training_findings(Evidence(replace(frames, cells=only)))
    assert not finding.is_result
    assert "Only d64/L1 was trained" in finding.text


def test_times_of_two_devices_are_not_compared(frames: StudyFrames) -> None:
    mixed = replace(frames, cells=frames.cells.assign(device_name=["A", "B"] * 6))
    told = training_findings(Evidence(mixed))
    assert "Training times are not compared: cells differ in device_name (A in 6 cells, B in 6)." in texts(told, False)
    assert "equal training time" not in texts(told, True)


def test_disturbed_clocks_are_told_first(frames: StudyFrames) -> None:
    assert clocks(frames.cells) == []
    disturbed = replace(frames, cells=frames.cells.assign(disturbance=[0.8, 1.2] * 6))
    assert "0.80 to 1.20 times the modelled one" in str(findings(disturbed)[0])
    assert summary(disturbed).startswith("Measured training time is 0.80 to 1.20 times")


def test_models_on_the_plateau_are_told_first_and_left_out(frames: StudyFrames) -> None:
    cells = frames.cells.assign(frequency_loss=4.1)
    evidence = Evidence(replace(frames, cells=cells))
    first = str(caveats(evidence)[0])
    assert first.startswith(
        "d64/L1 after 7.5 s and d128/L2 after 7.5 s: not 0.1 nats below what token frequencies give"
    )
    left = set(evidence.known["cell"]) - set(evidence.compressed["cell"])
    assert len(left) == 48
    told = compression_findings(evidence)
    assert "Left out of all comparisons of compressed models: d64/L1 after 7.5 s and d128/L2 after 7.5 s." in every(
        told
    )
    alone = replace(frames, cells=frames.cells.assign(frequency_loss=2.35))
    assert summary(alone).startswith("No model has learned more") and "is ahead of" not in summary(alone)
    none = replace(frames, cells=frames.cells.assign(frequency_loss=2.3))
    assert summary(none).startswith("No model has learned more than token frequencies, so no size is better")
    (left_out,) = compression_findings(Evidence(none))
    assert left_out.text.startswith("Left out of all comparisons")
    assert "is ahead" not in every(best_sizes(Evidence(none), "model_seconds"))
    assert "none (token frequencies alone do as well)" in every(best_sizes(Evidence(none), "model_seconds"))


def test_the_three_questions_are_three_sentences(evidence: Evidence) -> None:
    time, steps, loss = larger_loses_less(evidence)
    assert time.text.startswith("At equal training time (60 s; one seed per size), the same recipes cost ")
    assert all(f"({name})" in time.text for name in ("d64/L1", "d64/L2", "d128/L2"))
    assert "d64/L2 loses less than d64/L1 by 0." in time.text and "d128/L2 loses less than d64/L2 by 0." in time.text
    assert "order not tested: one seed" in time.text and not time.is_result
    assert "Loss increases at equal steps cannot be compared: no two sizes were compressed" in steps.text
    assert loss.text.startswith("At equal dense loss (2.53 nats; one seed per size)")


def test_with_seeds_larger_loses_less_is_clear(frames: StudyFrames) -> None:
    cells, compression = with_seeds(frames.cells, 3), _reseeded(frames, 3)
    time = larger_loses_less(changed(frames, cells=cells, compression=compression))[0]
    assert time.is_result and "3 seeds per size" in time.text and "; clear)" in time.text
    factor = compression["series"].map({"d64/L1": 1, "d64/L2": 2, "d128/L2": 5})
    turned = compression.assign(loss_increase=compression["loss_increase"] * factor)
    turned = turned.assign(loss=turned["dense_loss"] + turned["loss_increase"])
    time = larger_loses_less(changed(frames, cells=cells, compression=turned))[0]
    assert not time.is_result and "d128/L2 loses more than d64/L2" in time.text


def _reseeded(frames: StudyFrames, seeds: int) -> pd.DataFrame:
    rows = with_seeds(frames.compression, seeds, noise=0.0)
    factor = 1 + 0.02 * rows["seed"]
    return rows.assign(
        loss_increase=rows["loss_increase"] * factor, loss=rows["dense_loss"] + rows["loss_increase"] * factor
    )


def test_nothing_that_works_is_said(frames: StudyFrames) -> None:
    destroyed = changed(frames, compression=frames.compression.assign(loss_increase=5.0))
    (told,) = equal_bytes(destroyed)
    assert not told.is_result and "below 1 nat" in told.text
    assert "share no recipe under which any of them still works" in larger_loses_less(destroyed)[0].text


def test_equal_bytes_names_the_best_and_those_who_never_are(frames: StudyFrames) -> None:
    won, never = equal_bytes(changed(frames, noise=0.01))
    assert "(d64/L1, d64/L2 and d128/L2; trained for 60 s" in won.text and "d64/L2 from 115 kB up" in won.text
    assert never.text == "d128/L2 has the lowest loss at no file size after 60 s."


def test_a_large_model_that_wins_at_equal_bytes_is_found(frames: StudyFrames) -> None:
    better = frames.compression["series"] == "d128/L2"
    shifted = frames.compression.assign(
        loss=frames.compression["loss"] - 0.5 * better, dense_loss=frames.compression["dense_loss"] - 0.5 * better
    )
    evidence = changed(frames, compression=shifted)
    (won,) = [finding for finding in equal_bytes(evidence) if "d128/L2" in finding.text and finding.is_result]
    assert "d128/L2 from" in won.text and " up." in won.text
    told = texts(beats_dense(evidence), True)
    assert "d128/L2 after 60 s" in told
    assert "is smaller and better than d64/L2 dense (2.31" in told


def test_no_larger_model_beats_the_best_dense_one_here(evidence: Evidence) -> None:
    found, not_found = beats_dense(evidence)
    assert "smaller and better than d64/L1 dense" in found.text and found.is_result
    assert not_found.text.startswith(
        "No larger model compresses to something smaller and better than d64/L2 dense (2.31"
    )


def test_a_larger_model_within_the_noise_is_not_found(frames: StudyFrames) -> None:
    noisy = changed(frames, noise=2.0)
    assert not any(finding.is_result for finding in beats_dense(noisy))


def test_what_costs_nothing_is_said_first(frames: StudyFrames, evidence: Evidence) -> None:
    free, paid = nearest_to_dense(evidence)
    assert free.is_result and "8 bit row costs it less than 0.02 nats at 3.9 times fewer bytes (230 kB)" in free.text
    assert paid.text.startswith("Of files of d64/L2 after 60 s up to 184 kB, at least 1.25 times smaller than that, ")
    eight = frames.compression["bits"].eq(8) & frames.compression["sparsity"].eq(0)
    lossless = frames.compression.assign(
        loss=frames.compression["loss"].mask(eight, frames.compression["dense_loss"]),
        loss_increase=frames.compression["loss_increase"].mask(eight, 0.0),
    )
    assert "8 bit row costs it nothing measurable" in str(nearest_to_dense(changed(frames, compression=lossless))[0])
    dear = frames.compression.assign(loss_increase=0.5, loss=frames.compression["dense_loss"] + 0.5)
    dear = dear.mask(frames.compression["recipe"].eq("dense"), frames.compression)
    first = nearest_to_dense(changed(frames, compression=dear))[0]
    assert not first.is_result and "every smaller file of it may cost 0.02 nats or more" in first.text
    only_dense = frames.compression[frames.compression["recipe"] == "dense"]
    assert not nearest_to_dense(changed(frames, compression=only_dense))[0].is_result


def test_a_loss_for_a_few_bytes_is_never_named(frames: StudyFrames, evidence: Evidence) -> None:
    """8 bit costs nothing; a file 1 % smaller, at the edge of what costs nothing, is not named in its place."""
    rows = frames.compression
    is_eight = rows["bits"].eq(8) & rows["sparsity"].eq(0)
    free = rows.assign(
        loss=rows["loss"].mask(is_eight, rows["dense_loss"]), loss_increase=rows["loss_increase"].mask(is_eight, 0.0)
    )
    edge = rows["recipe"].eq("prune 15 % global, 8 bit row")
    size = rows[is_eight].set_index("parent")["file_bytes"].reindex(rows["parent"]).to_numpy()
    for increase in (0.004, 0.097):
        close = free.assign(
            loss=free["loss"].mask(edge, free["dense_loss"] + increase),
            loss_increase=free["loss_increase"].mask(edge, increase),
            file_bytes=free["file_bytes"].mask(edge, 0.99 * size),
        )
        first, then = nearest_to_dense(changed(frames, compression=close))
        assert "8 bit row costs it nothing measurable" in first.text and "prune 15 %" not in first.text + then.text
        assert (
            "cover 0 and end below 0.02 nats; of these it is the smallest file, or the cheapest within 5 %"
            in first.text
        )


def test_a_study_of_before_still_has_its_findings(old: StudyFrames) -> None:
    told = findings(old)
    assert "without them no order is tested" in every(told)
    assert "order not tested: no losses per document were kept" in every(told)
    assert "clearly" not in every(told) and "95 %" not in every(told) and "tie" not in every(told).split()
    assert any(finding.is_result for finding in told) and "nan" not in every(told).lower().split()
    assert method(Evidence(old)) == []


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[:99], lambda text: text.replace("1", "2", 1), lambda text: ""],
    ids=["cut", "digit", "empty"],
)
def test_a_damaged_file_of_losses_is_told_and_left_out(damage: Callable[[str], str], tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5, 15.0), compressed=False)
    folder = next(study.folders("train"))
    text = folder.document_losses.read_text(encoding="utf-8")
    folder.document_losses.write_text(damage(text), encoding="utf-8")
    with pytest.warns(UserWarning, match="document_losses.json=damaged.*trainlarge redo"):
        told = findings(load_study(study))
    assert "without them no order is tested" in every(told)


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ({"passages": 0.344, "documents": 0.2}, "34 % of the validation text (passages of 50 characters) also occurs"),
        ({"passages": None, "documents": 0.251}, "25 % of the validation documents also occur"),
        ({"passages": 0.1, "documents": 0.0}, None),
        ({}, None),
    ],
    ids=["passages", "short documents", "a tenth", "not known"],
)
def test_validation_text_that_was_seen_in_training_is_told(
    shares: dict[str, float | None], told: str | None, tmp_path: Path
) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5, 15.0), compressed=False)
    for folder in study.folders("train"):
        record = folder.record_data()
        record["data"] |= {f"overlap_{unit}": share for unit, share in shares.items()}
        folder.write_record_data(record)
    frames = load_study(study)
    sentences = [str(finding) for finding in findings(frames) if "unseen text" in str(finding)]
    assert sentences == ([f"{told} in the training text: losses are lower than on unseen text."] if told else [])
    assert all(sentence in summary(frames) for sentence in sentences)


@pytest.mark.parametrize("newer", [0, 1, 1000])
def test_files_of_several_choices_of_encodings_are_told(newer: int, frames: StudyFrames) -> None:
    assert set(frames.compression["packing"]) == {1}, "records of before do not say"
    packing = [2 if index < newer else 1 for index in range(len(frames.compression))]
    some = replace(frames, compression=frames.compression.assign(packing=packing))
    told = [str(finding) for finding in findings(some) if "File sizes are not quite" in str(finding)]
    others = len(frames.compression) - newer
    assert told == [] if newer != 1 else f"differ in packing (1 in {others} cells, 2 in 1)" in told[0]


def test_recipes_that_leave_nearly_nothing_of_a_matrix_are_told(frames: StudyFrames) -> None:
    assert "nearly nothing" not in every(findings(frames)), "records of before do not say"
    rows = frames.compression
    is_pruned = rows["recipe"].eq("prune 75 % global, 3 bit row")
    assert is_pruned.sum() == 12
    some = replace(frames, compression=rows.assign(nearly_lost=is_pruned.map({True: "a.weight, b.weight", False: ""})))
    (told,) = [str(finding) for finding in findings(some) if "nearly nothing" in str(finding)]
    cell = rows.loc[is_pruned, "cell"].iloc[0]
    assert told == (
        "Of some matrices nearly nothing is left in 12 of 288 compressed models: prune 75 % global, 3 bit row (12). "
        f"An example is a.weight in cell {cell}, whose log says how much is left."
    )


def test_documents_and_comparisons_are_counted(frames: StudyFrames, evidence: Evidence) -> None:
    assert "35 documents of the evaluation set, worth 15 equally long ones" in method(evidence)[0].text
    assert "none is called clear" in method(evidence)[0].text
    some = changed(frames, cells=with_seeds(frames.cells, 3))
    assert f"the {some.family.tested} comparisons of this report" in method(some)[0].text
    assert some.family.tested >= 3 * 3 * 2 - 3


def test_nothing_compressed_is_said(frames: StudyFrames) -> None:
    (finding,) = compression_findings(Evidence(replace(frames, compression=frames.compression.iloc[:0])))
    assert finding.text == "Nothing was compressed yet."


def test_compressed_models_that_cannot_be_compared_are_no_nothing(frames: StudyFrames) -> None:
    cut = replace(frames, compression=frames.compression.assign(unknown_share=0.1))
    (finding,) = compression_findings(Evidence(cut))
    why = "tokens that are to be predicted were cut (288)"
    assert finding.text == f"No compressed model is compared: of 288 models, {why}." and not finding.is_result
    missed = replace(frames, cells=frames.cells.assign(budget_missed=2.0))
    (finding,) = compression_findings(Evidence(missed))
    assert "their checkpoint missed its budget (288)" in finding.text


def test_all_findings_are_sentences(frames: StudyFrames) -> None:
    told = findings(frames)
    assert {finding.is_result for finding in told} == {True, False}
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
    def told(**columns: object) -> list[Finding]:
        return training_findings(Evidence(replace(frames, cells=frames.cells.assign(**columns))))

    some = told(per_device=[2] * 4 + [1] * 8)
    assert "Training times of 4 of 12 cells are left out: they shared a device (launcher.per_device)." in texts(
        some, False
    )
    assert "At equal training time" in texts(some, True)
    both = told(per_device=[2] * 4 + [1] * 8, mixed=[True] * 5 + [False] * 7)
    assert "Training times of 1 of 12 cells are left out: a resume changed their device or implementation." in texts(
        both, False
    )
    shared = told(per_device=2)
    assert "12 of 12 cells" in texts(shared, False) and "At equal FLOPs" in texts(shared, True)
    assert "training time" not in texts(shared, True)
    assert "left out" not in texts(told(), False)
