"""The paper's claims, judged on studies whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import chained
from chained import Finetuned
from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.scored_models import ScoredModels
from trainlarge.results.claims.claim import Standing, Verdict
from trainlarge.results.claims.claims import CLAIMS, judged
from trainlarge.results.claims.finetuning import common_range, mean_over
from trainlarge.results.frames import StudyFrames, load_study
from trainlarge.results.study_parts import Part, parts_of
from trainlarge.results.weight_changes import module_of

Verdicts = Callable[[Finetuned], dict[str, Verdict]]


def part_of(path: Path, task: Finetuned, seeds: tuple[int, ...] = chained.SEEDS) -> Part:
    return parts_of(load_study(chained.make_chain(path, (task,), seeds)))[-1]


def noisy(part: Part, noise: float = 0.0005) -> Part:
    """With costs of compression that differ a little between runs."""
    rows = part.frames.compression
    shift = np.random.default_rng(0).normal(0, noise, len(rows)) * rows["recipe"].ne("dense")
    return replace(part, frames=replace(part.frames, compression=rows.assign(accuracy=rows["accuracy"] + shift)))


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """Claim -> verdict on a study of such finetuned models, with three seeds."""
    made: dict[Finetuned, dict[str, Verdict]] = {}

    def of(task: Finetuned) -> dict[str, Verdict]:
        if task not in made:
            part = noisy(part_of(tmp_path_factory.mktemp("claims") / "some", task))
            made[task] = {claim.name: verdict for claim, verdict in judged(part)}
        return made[task]

    return of


def test_every_claim_says_where_it_is_from() -> None:
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS) == 6
    assert all(claim.source.startswith("Li et al. 2020") and claim.statement.endswith(".") for claim in CLAIMS)


def test_sizes_that_score_alike_at_equal_pretraining_loss_are_not_harder_to_finetune(verdicts: Verdicts) -> None:
    verdict = verdicts(Finetuned())["finetuning"]
    assert verdict.standing is Standing.SUPPORTED
    assert "Between 2.53 and 3.98 nats of pretraining loss, d64/L2 scores 0.00 points" in verdict.text
    assert len(verdict.cells) == 36


def test_a_size_that_scores_less_at_equal_pretraining_loss_is_harder_to_finetune(verdicts: Verdicts) -> None:
    """0.05 per million parameters: 612,000 are 391,000 more than 221,000, and so cost 1.95 points."""
    verdict = verdicts(Finetuned(harder=0.05))["finetuning"]
    assert verdict.standing is Standing.CONTRADICTED
    assert "d128/L2 scores 1.95 points (95 % interval 1.73 to 2.18; clear) below d64/L2" in verdict.text


def test_fragile_small_models_support_that_larger_ones_lose_less(verdicts: Verdicts) -> None:
    verdict = verdicts(Finetuned(drop=0.03))["robustness"]
    assert verdict.standing is Standing.SUPPORTED
    assert "d128/L2 loses less than d64/L1 by 1.9" in verdict.text
    assert "and 2 of 2 steps to the next larger size lose less" in verdict.text


def test_equal_costs_leave_it_undecided_who_loses_less(verdicts: Verdicts) -> None:
    assert verdicts(Finetuned(drop=0.0))["robustness"].standing is Standing.UNDECIDED


def test_costs_that_stay_the_same_along_training_are_not_explained_by_convergence(verdicts: Verdicts) -> None:
    verdict = verdicts(Finetuned(drop=0.03))["convergence"]
    assert verdict.standing is Standing.SUPPORTED
    assert verdict.text.startswith("From 7.5 s to 60 s of training, what 4 bits cost ")
    assert verdict.text.endswith("Each larger size loses less than the next smaller one at 4 of 4 budgets.")


def test_costs_that_grow_along_training_contradict_it(verdicts: Verdicts) -> None:
    """A point per doubling: three doublings of the budget, and of the steps to within finetuning, are three points."""
    verdict = verdicts(Finetuned(drop_per_doubling=0.01))["convergence"]
    assert verdict.standing is Standing.CONTRADICTED
    assert verdict.text.count("rises by 3.0") + verdict.text.count("rises by 2.9") == 3


def test_at_equal_size_the_larger_model_wins_or_loses_as_it_was_made(verdicts: Verdicts) -> None:
    """d128/L2 scores less than d64/L2 after equal time, so that it cannot win; without cost d64/L2 beats d64/L1."""
    verdict = verdicts(Finetuned(drop=0.0))["bytes"]
    assert verdict.standing is Standing.CONTRADICTED
    assert "above d64/L1 with 8 bit row (69.7 % at" in verdict.text and "below d64/L2" in verdict.text
    verdict = verdicts(Finetuned(drop=0.0))["parameters"]
    assert verdict.standing is Standing.SUPPORTED and "d64/L2 with prune 60 % global" in verdict.text


def test_with_one_seed_nothing_is_decided_and_what_was_measured_is_said(tmp_path: Path) -> None:
    verdicts = {claim.name: verdict for claim, verdict in judged(part_of(tmp_path / "some", Finetuned(), (0,)))}
    assert {verdict.standing for verdict in verdicts.values()} == {Standing.UNDECIDED}
    assert "order not tested: one seed" in verdicts["finetuning"].text
    assert verdicts["robustness"].text.endswith("Too few seeds for a test; as measured, it holds.")
    assert "as measured, it does not hold." in verdicts["bytes"].text


def test_language_models_are_judged_by_their_loss(frames: StudyFrames) -> None:
    """The made study has one seed: numbers, but no verdict; its pretraining is not judged as finetuning."""
    (part,) = parts_of(frames)
    verdicts = {claim.name: verdict for claim, verdict in judged(part)}
    assert "finetuning" not in verdicts
    assert verdicts["robustness"].standing is Standing.UNDECIDED
    assert "d128/L2 loses less than d64/L1 by 0.13 nats" in verdicts["robustness"].text


def test_a_study_that_compressed_nothing_is_not_judged(frames: StudyFrames) -> None:
    (part,) = parts_of(replace(frames, compression=frames.compression.iloc[:0]))
    assert judged(part) == []


def test_lines_are_read_where_all_of_them_are_known() -> None:
    lines = [(np.array([1.0, 3.0]), np.array([10.0, 30.0])), (np.array([2.0, 4.0]), np.array([0.0, 0.0]))]
    assert common_range(lines) == (2.0, 3.0)
    assert mean_over(lines[0], (2.0, 3.0)) == pytest.approx(25.0)
    assert common_range([lines[0], (np.array([3.0, 4.0]), np.array([0.0, 0.0]))]) is None


def test_seeds_of_finetuning_on_one_pretrained_model_count_where_pretraining_has_one(tmp_path: Path) -> None:
    part = part_of(tmp_path / "some", Finetuned(), (0, 1))
    assert set(part.frames.cells["seed"]) == {0, 1}
    cells = part.frames.cells.assign(parent_seed=0)
    models = ScoredModels(replace(part, frames=replace(part.frames, cells=cells)))
    assert set(models.cells["seed"]) == {0, 1}


def at_chance(part: Part, shapes: set[str]) -> Part:
    """With a most frequent label, in 60 % of 400 rows, that models of these shapes are no better than."""
    cells = part.frames.cells.assign(baseline_accuracy=0.6, evaluation_documents=400)
    accuracy = cells["accuracy"].where(~cells["shape"].isin(shapes), 0.64)
    return replace(part, frames=replace(part.frames, cells=cells.assign(accuracy=accuracy)))


def test_no_claim_is_judged_on_models_at_chance(tmp_path: Path) -> None:
    """Two standard errors of 60 % of 400 rows are 4.9 points."""
    part = noisy(part_of(tmp_path / "some", Finetuned(per_nat=0.05, drop=0.03)))
    some = at_chance(part, {"d64/L1"})
    assert set(ScoredModels(some).at_chance["series"]) == {"d64/L1"} and len(ScoredModels(some).at_chance) == 4
    verdicts = {claim.name: verdict for claim, verdict in judged(some)}
    assert all("d64/L1" not in verdict.text for verdict in verdicts.values())
    assert all(verdict.text.endswith("4 of 12 sizes and budgets are at chance.") for verdict in verdicts.values())
    assert verdicts["robustness"].standing is Standing.SUPPORTED and "than d64/L2 by" in verdicts["robustness"].text
    verdicts = {claim.name: verdict for claim, verdict in judged(at_chance(part, {*some.frames.cells["shape"]}))}
    assert set(verdicts) == {claim.name for claim in CLAIMS}
    assert {verdict.standing for verdict in verdicts.values()} == {Standing.UNDECIDED}
    assert verdicts["bytes"].text == "12 of 12 sizes and budgets are at chance: nothing can be judged on them."


def test_models_above_chance_are_all_judged(tmp_path: Path) -> None:
    part = at_chance(noisy(part_of(tmp_path / "some", Finetuned(per_nat=0.05, drop=0.03))), set())
    assert ScoredModels(part).at_chance.empty
    assert not any("at chance" in verdict.text for _, verdict in judged(part))


@pytest.mark.parametrize(
    ("tensor", "module"),
    [
        ("model.layers.3.attn.Wqkv.weight", "attention in"),
        ("model.layers.3.attn.Wo.weight", "attention out"),
        ("model.layers.3.mlp.Wi.weight", "feed-forward in"),
        ("model.layers.3.mlp.Wo.weight", "feed-forward out"),
        ("roberta.encoder.layer.0.attention.self.key.weight", "attention in"),
        ("roberta.encoder.layer.0.attention.output.dense.weight", "attention out"),
        ("roberta.encoder.layer.0.intermediate.dense.weight", "feed-forward in"),
        ("roberta.encoder.layer.0.output.dense.weight", "feed-forward out"),
        ("model.layers.0.self_attn.q_proj.weight", "attention in"),
        ("model.layers.0.self_attn.o_proj.weight", "attention out"),
        ("model.layers.0.mlp.up_proj.weight", "feed-forward in"),
        ("model.layers.0.mlp.down_proj.weight", "feed-forward out"),
        ("model.embed_tokens.weight", "embeddings"),
        ("model.embeddings.tok_embeddings.weight", "embeddings"),
        ("head.dense.weight", "head"),
        ("classifier.weight", "head"),
        ("model.final_norm.weight", "other"),
    ],
)
def test_names_of_tensors_say_their_module(tensor: str, module: str) -> None:
    assert module_of(tensor) == module


@pytest.mark.parametrize(("shrink", "expected"), [(0.7, Standing.SUPPORTED), (1.3, Standing.CONTRADICTED)])
def test_weight_changes_of_deeper_models_are_compared_module_by_module(
    tmp_path: Path, shrink: float, expected: Standing
) -> None:
    study = chained.make_chain(tmp_path / "some", recipes=((0.0, 32), (0.0, 4)))
    chained.add_weight_errors(study, shrink)
    part = parts_of(load_study(study))[-1]
    verdict = {claim.name: verdict for claim, verdict in judged(part, Evidence(part.frames))}["weights"]
    assert verdict.standing is expected
    assert verdict.text.startswith("Width 64, 1 to 2 layers: 4 bits move the mean weight by attention in 0.0101 → ")
