"""The report of a study with several tasks: a section for each, with figures of its own metric."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

import chained
import made
from chained import Finetuned
from trainlarge.results.analysis.scored_models import ScoredModels
from trainlarge.results.frames import load_study
from trainlarge.results.report.descriptions_of_scores import weight_description
from trainlarge.results.report.figures_of_compression import bytes_figure
from trainlarge.results.report.figures_of_scores import convergence_figure, pretraining_figure, weight_figure
from trainlarge.results.report.findings import findings
from trainlarge.results.report.findings_of_finetuning import finetuning_findings, pretraining_helps, score_rows
from trainlarge.results.report.page import write_report
from trainlarge.results.report.section import section
from trainlarge.results.study_parts import parts_of
from trainlarge.sweep.store import Study

SEEDS = (0, 1)
TASKS = (Finetuned("sst2"), Finetuned("mnli", per_nat=0.12, drop=0.03))
RECIPES = ((0.0, 32), (0.0, 8), (0.0, 4), (0.6, 32))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = chained.make_chain(tmp_path_factory.mktemp("chain") / "chain", TASKS, SEEDS, RECIPES)
    chained.add_weight_errors(study, 0.7)
    return study


@pytest.fixture(scope="module")
def models(chain: Study) -> ScoredModels:
    """Those finetuned on SST-2."""
    return ScoredModels(next(part for part in parts_of(load_study(chain)) if part.name.endswith("sst2")))


@pytest.fixture(scope="module")
def page(chain: Study) -> Path:
    return write_report(chain)


def sections_of(page: Path) -> dict[str, str]:
    """Name of a section -> its text."""
    text = page.read_text(encoding="utf-8")
    parts = re.split(r'<h2 id="[^"]*">([^<]*)</h2>', text)
    return {html.unescape(name): content for name, content in zip(parts[1::2], parts[2::2], strict=True)}


def test_each_part_has_a_section_that_speaks_of_nothing_else(page: Path) -> None:
    sections = sections_of(page)
    parts = ["mlm", "classification of mnli", "classification of sst2"]
    assert [name for name in sections if name in parts] and set(parts) < set(sections)
    assert "masked token" in sections["mlm"] and "rows labelled right" not in sections["mlm"]
    later = "These models were compressed after they were finetuned, and not before: classification of mnli (96) and"
    assert later in sections["mlm"] and "Nothing was compressed" not in sections["mlm"]
    for name in parts[1:]:
        assert "rows labelled right" in sections[name] and "masked token" not in sections[name]
        assert "24 finetuned models, 2 per size and pretraining budget" in sections[name]
    assert "Best: d64/L2 after 60 s of pretraining, 71.8 %" in sections["classification of sst2"]


def test_each_section_of_finetuned_models_has_the_papers_figures(page: Path) -> None:
    sections = sections_of(page)
    titles = re.findall(r"<h4>([^<]*)</h4>\n<img", sections["classification of sst2"])
    assert titles == [
        "Accuracy against pretraining loss",
        "Accuracy against size",
        "Accuracy against FLOPs",
        "Accuracy against file size",
        "Accuracy against non-zero parameters",
        "Quantized along training",
        "How far weights move",
    ]
    assert sections["mlm"].count("<figure") == 5, "nothing was compressed before it was finetuned"
    names = {path.name for path in page.parent.glob("*.svg")}
    assert "classification_of_sst2_weight_change.svg" in names and "mlm_loss_against_size.svg" in names


def test_verdicts_stand_in_the_page_and_with_all_their_cells_in_a_file(page: Path, chain: Study) -> None:
    text, verdicts = page.read_text(encoding="utf-8"), pd.read_csv(page.parent / "claims.csv")
    assert set(verdicts["part"]) == {"classification of mnli", "classification of sst2"} and len(verdicts) == 12
    cells = {folder.id for stage in ("train", "compress") for folder in chain.folders(stage)}
    for row in verdicts.to_dict("records"):
        assert f"<strong>{row['standing']}</strong> · {row['statement']}" in text
        assert html.escape(row["text"], quote=False) in text or row["text"] in html.unescape(text)
        assert set(row["cells"].split()) <= cells
    assert "Of 6 findings of the paper, " in text


def test_ids_and_text_alternatives_are_not_repeated(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]*)"', text)
    told = re.findall(r' alt="([^"]*)"', text)
    assert len(ids) == len(set(ids)) and len(told) == text.count("<figure")
    assert len(set(told)) == len(told) - 1, "weights moved alike on both data sets"


def test_the_score_stands_at_the_pretraining_loss_of_its_checkpoint(models: ScoredModels) -> None:
    (axes,) = pretraining_figure(models).axes
    points = {(round(x, 4), round(y, 4)) for line in axes.lines for x, y in line.get_xydata()}
    means = models.cells.groupby(["shape", "budget"])[["parent_loss", "accuracy"]].mean().round(4)
    assert points == set(means.itertuples(index=False, name=None))
    low, high = axes.get_xlim()
    assert low > high, "loss falls to the right"


def test_both_lines_of_a_colour_are_the_model_and_what_quantization_leaves_of_it(models: ScoredModels) -> None:
    (axes,) = convergence_figure(models).axes
    by_colour: dict[str, list[np.ndarray]] = {}
    for line in axes.lines:
        by_colour.setdefault(str(line.get_color()), []).append(np.asarray(line.get_ydata(), float))
    gaps = [first - second for first, second in by_colour.values()]
    assert [round(float(gap.mean()), 4) for gap in gaps] == [0.01, 0.0065, 0.0035]


def test_compressed_models_stand_at_their_mean_accuracy_with_the_frontier_above(models: ScoredModels) -> None:
    rows = models.frames.compression
    (axes,) = bytes_figure(rows, "nonzero_parameters", y="accuracy").axes
    means = rows.groupby(["series", "budget", "recipe"])["accuracy"].mean()
    seeds, strong = _marks(axes, 7.0), [*_marks(axes, 20.0), *_marks(axes, 42.0)]
    assert sorted(y for _, y in strong) == pytest.approx(sorted(means)) and len(means) == len(rows) / len(SEEDS)
    assert sorted(seeds) == sorted(map(tuple, rows[["nonzero_parameters", "accuracy"]].to_numpy(float)))
    assert "right" in axes.get_ylabel() and axes.get_xlabel() == "non-zero parameters"
    (line,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    best = np.asarray(line.get_ydata(), float)
    assert (np.diff(best) > 0).all() and best[-1] == pytest.approx(means.max()), "no seed that was lucky"
    low, high = axes.get_ylim()
    assert low < high and high > means.max()


def test_bars_are_standard_errors_over_seeds_whose_finetunings_count_once(models: ScoredModels) -> None:
    rows = models.frames.compression
    again = rows[rows["seed"].eq(0)].assign(accuracy=lambda rows: rows["accuracy"] + 0.1)
    for frame, lift in ((rows, 0.0), (pd.concat([rows, again], ignore_index=True), 0.05)):
        (axes,) = bytes_figure(frame, y="accuracy").axes
        bars = [
            segment for bar in axes.collections if isinstance(bar, LineCollection) for segment in bar.get_segments()
        ]
        assert len(bars) == len(rows) / len(SEEDS)
        apart = abs(chained.SHIFTS[1] - chained.SHIFTS[0] - lift)
        assert [float(high[1] - low[1]) for low, high in bars] == pytest.approx([apart] * len(bars))
        assert "means of 2 seeds ± standard error · pale: seeds" in axes.get_title(loc="left")


def test_a_model_of_one_seed_has_no_bar(models: ScoredModels) -> None:
    rows = models.frames.compression
    (axes,) = bytes_figure(rows[rows["seed"].eq(0)], y="accuracy").axes
    assert not any(isinstance(bar, LineCollection) for bar in axes.collections)
    assert len(_marks(axes, 7.0)) == 0 and "seeds" not in axes.get_title(loc="left")


def _marks(axes: Axes, area: float) -> list[tuple[float, float]]:
    """The places of the marks of a size."""
    dots = [found for found in axes.collections if isinstance(found, PathCollection)]
    return [tuple(place) for found in dots if found.get_sizes()[0] == area for place in np.asarray(found.get_offsets())]


def test_weights_of_the_deeper_models_move_less_in_the_figure(models: ScoredModels) -> None:
    panels = weight_figure(models).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["4 bits", "60 % pruned"]
    for axes in panels:
        first, *deeper = [np.asarray(line.get_ydata(), float) for line in axes.lines]
        assert all(np.allclose(line, 0.7 * first) for line in deeper) and len(first) == 4
    assert "attention in 0.007 to 0.0101" in weight_description(models)


@pytest.mark.parametrize("draw", [pretraining_figure, convergence_figure, weight_figure])
def test_labels_do_not_touch_and_legends_cover_nothing(draw: object, models: ScoredModels) -> None:
    figure: Figure = draw(models)  # type: ignore[operator]
    figure.draw_without_rendering()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            boxes = [tick.label1.get_window_extent() for tick in ticks if tick.label1.get_text()]
            assert not any(left.overlaps(right) for left, right in pairwise(boxes))
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)


def from_initial_weights(chain: Study, shape: tuple[int, int], gain: float, seeds: tuple[int, ...]) -> None:
    """Models that were never pretrained, ``gain`` below those that were for 60 s, read by a tokenizer of their own."""
    for seed in seeds:
        parent = made.make_train_cell(chain, shape, 60.0, seed)
        for rate, behind, chosen in ((1e-4, gain, 0.8), (3e-4, gain - 0.2, 0.7)):
            accuracy = TASKS[0].accuracy(parent.record_data()) + chained.SHIFTS[seed] - behind
            folder = chained.train_from_initial_weights(
                *(chain, shape, seed, TASKS[0], accuracy, rate), selection={"accuracy": chosen, "loss": 1.0}
            )
            record = folder.record_data()
            record["data"]["evaluation_fingerprint"] = "rows of another tokenizer"
            folder.write_record_data(record)


@pytest.mark.parametrize(("gain", "is_result"), [(0.02, True), (-0.02, False)])
def test_what_pretraining_was_good_for_is_told_against_initial_weights(
    tmp_path: Path, gain: float, is_result: bool
) -> None:
    """The rate with the better selection score counts, though the other one is better on validation."""
    chain = chained.make_chain(tmp_path / "chain", TASKS[:1], chained.SEEDS, ())
    from_initial_weights(chain, (64, 2), gain, chained.SEEDS)
    part = next(part for part in parts_of(load_study(chain)) if part.is_finetuned)
    models = ScoredModels(part)
    (finding,) = pretraining_helps(models)
    word = "better" if gain > 0 else "worse"
    assert f"against initial weights, 2.00 points (95 % interval 1.77 to 2.23; clear) {word} (d64/L2)." in finding.text
    assert finding.text.startswith("After 60 s of pretraining") and finding.is_result is is_result
    *_, row = score_rows(models)
    assert row[:3] == ["d64/L2", "none", "–"] and row[-1] == "3"


def test_confident_mistakes_do_not_put_a_classifier_on_the_plateau(models: ScoredModels) -> None:
    """Its loss is above that of the label frequencies, and it is right far more often than the most frequent label."""
    frames = models.part.frames
    cells = frames.cells.assign(loss=2.0, frequency_loss=0.7, baseline_accuracy=0.5, evaluation_documents=872)
    told = finetuning_findings(ScoredModels(replace(models.part, frames=replace(frames, cells=cells))))
    assert not any("frequencies" in finding.text or "At chance" in finding.text for finding in told)
    weak = cells.assign(accuracy=0.51)
    told = finetuning_findings(ScoredModels(replace(models.part, frames=replace(frames, cells=weak))))
    (finding,) = [finding for finding in told if finding.text.startswith("At chance, not clearly better than")]
    assert "(50.0 %): all models. No finding" in finding.text and not finding.is_result


def test_classifiers_from_initial_weights_are_judged_by_their_accuracy_and_not_by_their_loss(tmp_path: Path) -> None:
    study = Study(tmp_path / "scratch")
    for depth, accuracy in ((1, 0.7), (2, 0.8)):
        for seed, shift in chained.SHIFTS.items():
            chained.train_from_initial_weights(study, (64, depth), seed, TASKS[0], accuracy + shift, 1e-4)
    frames = load_study(study)
    # Above the loss of label frequencies, and right far more often than the most frequent label.
    cells = frames.cells.assign(loss=2.0, frequency_loss=0.7, baseline_accuracy=0.5, evaluation_documents=872)
    (part,) = parts_of(replace(frames, cells=cells))
    made_section = section(part, tmp_path)
    text = f"{made_section.summary} {' '.join(map(str, made_section.findings))}"
    assert "frequencies" not in text and "loss" not in text and "At chance" not in text
    assert "Best: d64/L2 after 2 epochs, 80.0 %; the most frequent label gives 50.0 %." in made_section.summary
    gap = "d64/L2 is better than d64/L1 by 10.00 points (95 % interval 9.77 to 10.23; clear)."
    assert f"After 2 epochs: 70.0 % (d64/L1) and 80.0 % (d64/L2). {gap}" in text
    names = [drawing.name for drawing, _, _ in made_section.figures]
    assert names == ["accuracy_against_seconds", "accuracy_against_flops", "accuracy_against_size"]
    assert made_section.tables[0].rows == [
        ["d64/L1", "2 epochs", "70.0 %", "0.10", "3"],
        ["d64/L2", "2 epochs", "80.0 %", "0.10", "3"],
    ]
    told = " ".join(map(str, findings(replace(frames, cells=cells.assign(accuracy=0.51)))))
    assert "At chance, not clearly better than the most frequent label (50.0 %): all models." in told
