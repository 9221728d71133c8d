"""Recovery training counts: at equal training, on the frontier, and in every sentence that compares."""

from __future__ import annotations

from dataclasses import replace

import pytest

import made
from trainlarge.config.recover import Retrain
from trainlarge.results import Evidence, bytes_figure, frontier, load_study
from trainlarge.results.analysis.loss_increases import STEPS, TIME
from trainlarge.results.claims.claim import Verdict
from trainlarge.results.claims.claims import judged
from trainlarge.results.frames import StudyFrames
from trainlarge.results.report.findings_of_compression import (
    beats_dense,
    equal_bytes,
    nearest_to_dense,
    recovered_longer,
)
from trainlarge.results.study_parts import parts_of
from trainlarge.results.training_cost import at_last_budget, has_recovery, training_cost

BUDGETS = (30.0, 60.0)


@pytest.fixture(scope="module")
def recovered(tmp_path_factory: pytest.TempPathFactory) -> StudyFrames:
    """Two budgets; each checkpoint pruned, pruned and recovered for half of its steps, and for 500 steps."""
    study = made.make_study(tmp_path_factory.mktemp("studies") / "recovered", BUDGETS, compressed=False)
    for folder in list(study.folders("train")):
        for recover in (None, Retrain("0.5 parent"), Retrain("500 steps")):
            for sparsity in (0.0, 0.6) if recover is None else (0.6,):
                made.make_compress_cell(study, folder, sparsity, 32, recover)
    frames = load_study(study)
    # Recovery brings back most of the loss.
    rows = frames.compression
    increase = rows["loss_increase"].where(~has_recovery(rows), 0.2 * rows["loss_increase"])
    rows["loss"], rows["loss_increase"] = rows["dense_loss"] + increase, increase
    return frames


def test_the_cost_of_a_compressed_model_is_that_of_its_checkpoint_and_of_recovery(recovered: StudyFrames) -> None:
    rows = recovered.compression
    half = rows["recipe"].str.contains("0.5 parent")
    for column in ("step", "tokens", "flops", "train_seconds", "model_seconds"):
        cost = training_cost(rows, column) / rows[column]
        assert cost[half].tolist() == pytest.approx([1.5] * half.sum(), rel=1e-3), column
        assert (cost[rows["recover"] == "none"] == 1).all()
        assert training_cost(recovered.cells, column).equals(recovered.cells[column]), "train cells have no recovery"
    assert training_cost(rows, "file_bytes").equals(rows["file_bytes"])
    assert rows["total_flops"].tolist() == training_cost(rows, "flops").tolist()
    assert rows["total_seconds"].tolist() == training_cost(rows, "train_seconds").tolist()


def test_the_frontier_of_loss_against_training_counts_recovery(recovered: StudyFrames) -> None:
    rows = recovered.compression[recovered.compression["series"] == "d64/L2"].reset_index(drop=True)
    best = frontier(rows, "flops")
    cost = training_cost(best, "flops")
    assert cost.is_monotonic_increasing and best["loss"].is_monotonic_decreasing
    # A recovered model of 30 s, 45 s in all, would tie with its dense checkpoint were recovery free.
    cheap = rows.assign(loss=rows["loss"].where(~has_recovery(rows), rows["loss"] - 1))
    chosen = frontier(cheap, "flops")
    assert chosen["recipe"].iloc[0] == "dense" and has_recovery(chosen).iloc[1:].all() and len(chosen) > 2


def test_at_equal_training_recovered_models_are_those_whose_whole_training_is_no_longer(recovered: StudyFrames) -> None:
    rows = at_last_budget(recovered.compression)
    plain = rows[~has_recovery(rows)]
    assert set(plain["budget"]) == {"60 s"} and len(plain) == 6
    longer = rows[has_recovery(rows)]
    assert set(longer["budget"]) == {"30 s"} and (training_cost(longer, "model_seconds") < 61).all()
    # 500 steps of the largest size take 14.5 s, of the others 6 and 7 s: all fit; half of 30 s does, too.
    assert len(longer) == 6


def test_findings_leave_out_models_that_recovery_trained_longer(recovered: StudyFrames) -> None:
    evidence = Evidence(recovered)
    (left_out,) = recovered_longer(evidence)
    assert left_out.text.startswith("6 models of 60 s had recovery training on top of it, 10 to 50 % of the steps")
    won = equal_bytes(evidence)[0].text
    assert "trained for 60 s, recovery included" in won
    assert not any("60 s with prune 60 % global, retrain" in finding.text for finding in beats_dense(evidence))
    cheapest = nearest_to_dense(evidence)[-1].text
    assert "retrain" in cheapest and "more training" in cheapest


def test_the_same_recipe_is_compared_where_it_trains_all_sizes_equally_long(recovered: StudyFrames) -> None:
    answers = {answer.equal: answer for answer in Evidence(recovered).increases}
    assert set(answers[TIME].families) == {"prune 60 %", "prune 60 %, retrain"}
    rows = recovered.compression
    only_fixed = rows[~rows["recipe"].str.contains("0.5 parent")].reset_index(drop=True)
    frames = StudyFrames(recovered.cells, recovered.curves, only_fixed, recovered.documents)
    by_fixed = {answer.equal: answer for answer in Evidence(frames).increases}
    assert set(by_fixed[TIME].families) == {"prune 60 %"}, "500 steps take some sizes longer than others"
    assert by_fixed[STEPS].why_not, "no two sizes have equal steps here"


def verdicts_of(frames: StudyFrames) -> dict[str, Verdict]:
    (part,) = parts_of(frames)
    return {claim.name: verdict for claim, verdict in judged(part)}


def test_claims_compare_recovered_models_only_at_equal_training(recovered: StudyFrames) -> None:
    rows = recovered.compression
    longest = has_recovery(rows) & rows["budget"].eq("60 s")
    # Were they compared, nothing could beat the models that had recovery on top of the last budget.
    better = replace(recovered, compression=rows.assign(loss=rows["loss"].where(~longest, 0.1)))
    for name in ("bytes", "parameters"):
        verdict = verdicts_of(better)[name]
        assert not set(rows.loc[longest, "cell"]) & set(verdict.cells)
        assert verdict.text.startswith("After 60 s, recovery included: ")
    within = has_recovery(rows) & rows["budget"].eq("30 s") & rows["series"].eq("d64/L2")
    better = replace(recovered, compression=rows.assign(loss=rows["loss"].where(~within, 0.1)))
    assert "d64/L2 with prune 60 % global, retrain 0.5 parent after 30 s (0.1" in verdicts_of(better)["parameters"].text


def test_robustness_is_judged_without_recovery_and_with_the_same_share_of_it(recovered: StudyFrames) -> None:
    rows = recovered.compression
    verdict = verdicts_of(recovered)["robustness"]
    used = rows[rows["cell"].isin(verdict.cells)]
    fixed = used["recipe"].str.contains("500 steps")
    assert not fixed.any(), "500 steps take some sizes longer than others"
    assert set(used["recover"]) == {"none", "retrain"} and "60 % pruned and recovered cost" in verdict.text


def test_the_figure_says_that_recovery_is_included(recovered: StudyFrames, frames: StudyFrames) -> None:
    assert "filled: after 60 s, recovery included" in bytes_figure(recovered.compression).axes[0].get_title(loc="left")
    assert "recovery" not in bytes_figure(frames.compression).axes[0].get_title(loc="left")


def test_a_study_without_recovery_is_compared_as_before(frames: StudyFrames) -> None:
    evidence = Evidence(frames)
    assert recovered_longer(evidence) == []
    assert set(evidence.compressed_equally["budget"]) == {"60 s"}
