"""Pruning and training in turns, and training until a score."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainlarge.compression import load_packed_weights
from trainlarge.compression.cells import recoveries_of
from trainlarge.compression.recovery import StudyTrainer
from trainlarge.compression.until import UntilScore, goal_of
from trainlarge.config.prune import Iterative, Magnitude
from trainlarge.config.recipe import Recipe
from trainlarge.config.recover import Retrain
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.results.frames import load_study
from trainlarge.results.recipes import recipe_family
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training.loop import Loop

Run = Callable[..., list[CellFolder]]
Compose = Callable[..., dict[str, Any]]
EXACT = ("impl.threads=1", "impl.precision=fp32", "impl.save_seconds=0")
RETRAIN = (*EXACT, "recover=retrain", "recover.budget=8 steps", "recover.lr=0.003")
ROUNDS = (*RETRAIN, "prune=iterative", "prune.round=0.2")
LEVELS = [0.2, 0.4, 0.5]
UNTIL = (*EXACT, "prune.sparsity=0.7", "recover=retrain", "recover.lr=0.003", "recover.at_most=24 steps")


class Stopped(Exception):
    """Stands for a process that dies."""


@pytest.fixture
def parent(tiny: Callable[..., dict[str, Any]], run_here: Run) -> CellFolder:
    [folder] = run_here("train", [tiny("impl.precision=fp32", "budget=60 steps")])
    return folder


@pytest.fixture
def config(compose: Compose, parent: CellFolder) -> Compose:
    """Composes a compress configuration of a trained checkpoint, with more overrides."""
    return lambda *overrides: compose(
        "compress", "study=tiny", f"checkpoint={parent.id}", "tracking=none", "impl.device=cpu", *overrides
    )


def result(folder: CellFolder) -> tuple[bytes, float, int, list[dict[str, Any]]]:
    """What must not depend on how a cell was made."""
    record = folder.record_data()
    rows = [{name: value for name, value in row.items() if name != "train_seconds"} for row in folder.metrics()]
    return folder.packed.read_bytes(), record["loss"], record["recover_flops"], rows


def forgotten(study: Study) -> None:
    """As if nothing had been compressed."""
    shutil.rmtree(study.path / "compress")
    shutil.rmtree(study.path / "trunks", ignore_errors=True)


def test_a_recipe_stands_for_its_rounds() -> None:
    recover = Retrain("5 steps")
    recipe = Recipe(prune=Iterative(0.9), recover=recover)
    levels = [0.15, 0.3, 0.45, 0.6, 0.75, 0.9]
    assert recipe.steps == tuple(step for level in levels for step in (Magnitude(level), recover))
    assert recipe.describe() == "prune 90 % global by 15 %, retrain 5 steps"
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Iterative(0.5, round=0.2, scope="row", embeddings=False).unfolded(recover)[::2] == tuple(
        Magnitude(level, "row", embeddings=False) for level in (0.2, 0.4, 0.5)
    )
    assert Iterative(0.1).levels == (0.1,) and Iterative(0.3).levels == (0.15, 0.3)


def test_rounds_need_training_right_after_them() -> None:
    wanted = r"^prune\.name=iterative is not valid: must be used with recover"
    for more in ({}, {"recover": Retrain("5 steps"), "order": ("recover", "prune")}):
        with pytest.raises(UserError, match=wanted):
            Recipe(prune=Iterative(0.5), **more)  # type: ignore[arg-type]
    for value in (0, 1, 0.001, "much", True):
        with pytest.raises(UserError, match=r"^prune\.round="):
            Iterative(0.5, round=value)  # type: ignore[arg-type]


def test_each_level_is_a_cell_and_as_if_alone(
    config: Compose, run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    train = StudyTrainer.train

    def noted(trainer: StudyTrainer, *others: Any) -> Any:
        trained.append(others[-1].steps)
        return train(trainer, *others)

    monkeypatch.setattr(StudyTrainer, "train", noted)
    configs = [config(*ROUNDS, f"prune.sparsity={level}") for level in LEVELS]
    folders = run_here("compress", configs)
    assert trained == [0, 8, 16], "each round once, and the data goes on"
    dense = sum(tensor.numel() for tensor in _matrices(folders[0]).values())
    zeros = None
    for number, (level, folder) in enumerate(zip(LEVELS, folders, strict=True), start=1):
        record, weights = folder.record_data(), _matrices(folder)
        assert (record["sparsity"], record["recover_steps"]) == (level, 8 * number)
        assert sum(int((tensor == 0).sum()) for tensor in weights.values()) == round(level * dense)
        for name, mask in (zeros or {}).items():
            assert not weights[name][mask].any(), "what was zero stays zero"
        zeros = {name: tensor == 0 for name, tensor in weights.items()}
        assert [row["step"] for row in folder.metrics()] == list(range(1, 8 * number + 1))
    together = [result(folder) for folder in folders]
    forgotten(study)
    [alone] = run_here("compress", [configs[-1]])
    assert result(alone) == together[-1]
    families = {recipe_family(row) for row in load_study(study).compression.to_dict("records")}
    assert families == {"prune 50 % iterative, retrain"}


def _matrices(folder: CellFolder) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in load_packed_weights(folder.packed).items() if tensor.ndim == 2}


def test_a_job_that_dies_in_a_later_round_goes_on_to_the_same_bits(
    config: Compose, run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [config(*ROUNDS, "prune.sparsity=0.4")]
    [folder] = run_here("compress", configs)
    expected = result(folder)
    ids = recoveries_of(folder.cell().config)  # type: ignore[arg-type]
    forgotten(study)
    check, checked = RunningJob.check, []

    def die(job: RunningJob) -> None:
        check(job)
        checked.append(1)
        if len(checked) == 11:
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(RunningJob, "check", die)
        with pytest.raises(Stopped):
            run_here("compress", configs)
    last = [max(path.name for path in (study.path / "trunks" / name).glob("recover-*")) for name in ids]
    assert last == ["recover-000000008", "recover-000000003"]
    [folder] = run_here("compress", configs)
    assert result(folder) == expected


@pytest.mark.parametrize(
    ("share", "dense", "higher", "goal"),
    [(0.995, 0.8, True, 0.796), (0.995, 3.0, False, 3.0 / 0.995), (1.0, 3.0, False, 3.0), (0.5, -0.2, True, -0.2)],
)
def test_the_goal_is_a_share_of_an_accuracy_and_the_loss_over_a_share(
    share: float, dense: float, higher: bool, goal: float
) -> None:
    assert goal_of(share, dense, higher) == pytest.approx(goal)


def test_training_ends_at_its_target(config: Compose, run_here: Run, study: Study) -> None:
    [folder] = run_here(
        "compress", [config(*UNTIL, "recover.lr=0.1", "recover.budget=until 0.9 dense", "recover.checks=12")]
    )
    record = folder.record_data()
    assert record["recover_reached"] is True and 0 < record["recover_steps"] < 24
    assert record["recover_steps"] % 2 == 0, "it is looked at every two steps"
    assert record["recover_score"] <= record["recover_goal"]
    row = load_study(study).compression.iloc[0]
    assert (row["recover_reached"], row["recover_goal"]) == (True, record["recover_goal"])
    [easy] = run_here("compress", [config(*UNTIL, "prune.sparsity=0.01", "recover.budget=until 0.5 dense")])
    assert (easy.record_data()["recover_steps"], easy.record_data()["recover_reached"]) == (0, True)
    # One look at the model, and one at the checkpoint.
    looks = record["recover_steps"] // 2 + 2
    steps = record["recover_flops"] - looks * easy.record_data()["recover_flops"] // 2
    [fixed] = run_here("compress", [config(*UNTIL[:-1], f"recover.budget={record['recover_steps']} steps")])
    assert steps == fixed.record_data()["recover_flops"]


def test_a_target_out_of_reach_keeps_the_best_weights(
    config: Compose, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores: list[float] = []
    look = UntilScore.look

    def noted(until: UntilScore, model: Any) -> None:
        score = until.score
        until.score = lambda model: scores.append(score(model)) or scores[-1]  # type: ignore[func-returns-value]
        look(until, model)
        until.score = score

    monkeypatch.setattr(UntilScore, "look", noted)
    # A rate at which training is worse in the end than on its way.
    overrides = ("recover.budget=until 1 dense", "recover.at_most=3 steps", "recover.checks=3", "recover.lr=1")
    [folder] = run_here("compress", [config(*UNTIL, *overrides)])
    record = folder.record_data()
    assert (record["recover_reached"], record["recover_steps"]) == (False, 3)
    assert len(scores) == 4 and record["recover_score"] == min(scores) < scores[-1]
    [pruned] = run_here("compress", [config(*EXACT, "prune.sparsity=0.7")])
    assert record["loss"] <= pruned.record_data()["loss"], "the weights before training are among those seen"


def test_training_until_a_target_goes_on_to_the_same_bits(
    config: Compose, run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [config(*UNTIL, "recover.budget=until 1 dense", "recover.checks=6")]
    [folder] = run_here("compress", configs)
    expected = result(folder)
    forgotten(study)
    check, checked = RunningJob.check, []

    def die(job: RunningJob) -> None:
        check(job)
        checked.append(1)
        if len(checked) == 10:
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(RunningJob, "check", die)
        with pytest.raises(Stopped):
            run_here("compress", configs)
    [folder] = run_here("compress", configs)
    assert result(folder) == expected
    shutil.rmtree(folder.path)
    monkeypatch.setattr(Loop, "run", lambda *_: pytest.fail("nothing is left to train"))
    [folder] = run_here("compress", configs)
    assert result(folder) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"budget": "until 0.995 dense"}, r"recover\.at_most=null.*'1 epoch'"),
        ({"budget": "until 1.5 dense", "at_most": "1 epoch"}, r"recover\.budget=until 1\.5 dense"),
        ({"budget": "0.995 dense", "at_most": "1 epoch"}, r"recover\.budget=0\.995 dense.*'until 0\.995 dense'"),
        ({"budget": "until 0.1 parent", "at_most": "1 epoch"}, r"recover\.budget=until 0\.1 parent"),
        ({"budget": "until 5 steps", "at_most": "1 epoch"}, r"recover\.budget=until 5 steps"),
        ({"budget": "until 0.9 dense", "at_most": "until 0.9 dense"}, r"recover\.at_most=until 0\.9 dense"),
        ({"budget": "5 steps", "at_most": "1 epoch"}, r"recover\.at_most=1 epoch.*null with recover\.budget=5 steps"),
        ({"budget": "5 steps", "checks": 3}, r"recover\.checks=3.*recover\.budget=5 steps"),
        (
            {"budget": "until 0.9 dense", "at_most": "1 epoch", "quantize_aware": True},
            r"recover\.quantize_aware=1.*until",
        ),
        ({"budget": "until 0.9 dense", "at_most": "1 epoch", "checks": 0}, r"recover\.checks=0"),
    ],
)
def test_targets_that_make_no_sense_are_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        Retrain(**given)


def test_keys_added_later_leave_recipes_as_they_were_written() -> None:
    assert Retrain("5 steps").to_json() == {"name": "retrain", "version": 1, "budget": "5 steps", "lr": None}
    until = Retrain("UNTIL 0.9950 dense", at_most="1 epoch")
    assert (until.budget, until.at_most, until.dense_share) == ("until 0.995 dense", "1 epochs", 0.995)
    assert until.describe() == "retrain until 0.995 dense, at most 1 epochs"
