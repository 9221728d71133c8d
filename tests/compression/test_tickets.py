"""Lottery tickets: what is left goes back to early weights and trains again as the parent did."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from trainlarge.compression import Heads, Iterative, Magnitude, Recipe, Retrain, TrainingData, compress
from trainlarge.compression import load_packed_weights as unpacked
from trainlarge.compression.cells import recovery_steps
from trainlarge.compression.tickets import at_random
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.results import load_study
from trainlarge.results.recipes import recipe_family
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.store import CellFolder, Study

Run = Callable[..., list[CellFolder]]
Compose = Callable[..., dict[str, Any]]
STEPS = 24
TICKET = (
    *("impl.threads=1", "impl.precision=fp32", "impl.save_seconds=0"),
    *("recover=retrain", "recover.budget=1 parent", "recover.rewind=initial"),
)
PRUNED = (*TICKET, "prune.sparsity=0.6")


class Stopped(Exception):
    """Stands for a process that dies."""


@pytest.fixture
def parent(tiny: Callable[..., dict[str, Any]], run_here: Run) -> CellFolder:
    [folder] = run_here("train", [tiny("impl.threads=1", "impl.precision=fp32", f"budget={STEPS} steps")])
    return folder


@pytest.fixture
def config(compose: Compose, parent: CellFolder) -> Compose:
    """Composes a compress configuration of a trained checkpoint, with more overrides."""
    return lambda *overrides: compose(
        "compress", "study=tiny", f"checkpoint={parent.id}", "tracking=none", "impl.device=cpu", *overrides
    )


def weights(folder: CellFolder) -> dict[str, Tensor]:
    return unpacked(folder.packed)


def matrices(folder: CellFolder) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights(folder).items() if tensor.ndim == 2}


def test_nothing_pruned_from_initial_weights_on_is_the_parent_bit_by_bit(
    config: Compose, run_here: Run, parent: CellFolder
) -> None:
    """So the weights, the rates, the batches and the dropout of a ticket are those of the parent."""
    [again] = run_here("compress", [config(*TICKET)])
    trained = load_file(parent.checkpoint / "model.safetensors")
    found = weights(again)
    assert len(found) > 10
    for name, tensor in found.items():
        assert torch.equal(tensor.view(torch.int32), trained[name].view(torch.int32)), name
    assert again.record_data()["recover_steps"] == STEPS


def test_a_ticket_and_its_controls_differ_in_what_they_say_alone(config: Compose, run_here: Run, study: Study) -> None:
    recipes = [
        ("impl.threads=1", "impl.precision=fp32", "prune.sparsity=0.6"),
        PRUNED,
        (*PRUNED, "recover.control=random_mask"),
        (*PRUNED, "recover.control=reinitialized"),
        (*PRUNED, "recover.rewind=8 steps"),
        (*PRUNED, "compress_head=false", "quantize.bits=4"),
    ]
    pruned, *trained, of_body = run_here("compress", [config(*recipe) for recipe in recipes])
    body = weights(of_body)
    assert len(body["head.dense.weight"].unique()) > 240 and len(body["model.layers.0.attn.Wo.weight"].unique()) < 100
    masks = {name: tensor == 0 for name, tensor in matrices(pruned).items()}
    ticket, shuffled, redrawn, early = map(matrices, trained)
    for name, mask in masks.items():
        for one in (ticket, redrawn, early):
            assert torch.equal(one[name] == 0, mask), name
        assert int((shuffled[name] == 0).sum()) == int(mask.sum())
    assert any(not torch.equal(shuffled[name] == 0, mask) for name, mask in masks.items())
    for one, other in ((ticket, redrawn), (ticket, early), (redrawn, early)):
        assert any(not torch.equal(one[name], other[name]) for name in masks)
    assert [folder.record_data()["recover_steps"] for folder in trained] == [STEPS, STEPS, STEPS, STEPS - 8]
    rows = load_study(study).compression.set_index("cell")
    families = [recipe_family(row) for row in rows.to_dict("records")]
    assert "prune 60 %, retrain from initial random_mask" in families
    found = [tuple(rows.loc[folder.id, ["recover_rewind", "recover_control"]]) for folder in trained]
    assert found == [
        ("initial", "none"),
        ("initial", "random_mask"),
        ("initial", "reinitialized"),
        ("8 steps", "none"),
    ]


def test_tickets_of_rounds_are_as_if_alone_and_their_masks_are_nested(
    config: Compose, run_here: Run, study: Study
) -> None:
    in_rounds = (*TICKET, "recover.rewind=8 steps", "prune=iterative", "prune.round=0.3")
    recipes = [
        (*in_rounds, "prune.sparsity=0.3"),
        (*in_rounds, "prune.sparsity=0.6"),
        (*in_rounds, "prune.sparsity=0.6", "recover.control=random_mask"),
    ]
    configs = [config(*recipe) for recipe in recipes]
    first, second, control = folders = run_here("compress", configs)
    steps = [folder.record_data()["recover_steps"] for folder in folders]
    assert steps == [rounds * (STEPS - 8) for rounds in (1, 2, 2)]
    for name, tensor in matrices(second).items():
        assert not tensor[matrices(first)[name] == 0].any(), "what was zero in a round stays zero in the next one"
        assert int((matrices(control)[name] == 0).sum()) == int((tensor == 0).sum())
    together = [folder.packed.read_bytes() for folder in folders]
    for one, expected in zip(configs[1:], together[1:], strict=True):
        shutil.rmtree(study.path / "compress")
        shutil.rmtree(study.path / "trunks")
        [alone] = run_here("compress", [one])
        assert alone.packed.read_bytes() == expected


@pytest.mark.parametrize("after", [5, 20])
def test_a_ticket_goes_on_to_the_same_bits(
    config: Compose, run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Stopped among the parent's first steps, which are taken again, and in the training of the ticket."""
    configs = [config(*PRUNED, "recover.rewind=8 steps")]
    [folder] = run_here("compress", configs)
    expected = folder.packed.read_bytes(), folder.record_data()["recover_flops"]
    shutil.rmtree(study.path / "compress")
    shutil.rmtree(study.path / "trunks")
    check, checked = RunningJob.check, []

    def die(job: RunningJob) -> None:
        check(job)
        checked.append(1)
        if len(checked) == after:
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(RunningJob, "check", die)
        with pytest.raises(Stopped):
            run_here("compress", configs)
    saved = {path.name for path in (study.path / "trunks").glob("*/*-0*")}
    assert {5: "early-000000005", 20: "recover-000000012"}[after] in saved
    [folder] = run_here("compress", configs)
    assert (folder.packed.read_bytes(), folder.record_data()["recover_flops"]) == expected


def test_what_no_parent_has_is_refused_before_anything_runs(config: Compose, parent: CellFolder) -> None:
    with pytest.raises(
        UserError, match=rf"^recover\.rewind=24 steps .* below the {STEPS} steps of train cell {parent.id}"
    ):
        make_cells("compress", [config(*PRUNED, "recover.rewind=24 steps")])
    [cell] = make_cells("compress", [config(*PRUNED, "recover.rewind=23")])
    assert recovery_steps(cell.as_compress) == 1


def test_a_random_mask_has_the_same_counts_and_follows_from_the_seed() -> None:
    zeros = {"a": torch.eye(5, dtype=torch.bool), "b": torch.zeros((3, 2), dtype=torch.bool)}
    first, again, other = at_random(zeros, 0), at_random(zeros, 0), at_random(zeros, 1)
    assert [int(mask.sum()) for mask in first.values()] == [5, 0]
    assert torch.equal(first["a"], again["a"]) and not torch.equal(first["a"], other["a"])
    assert first["a"].shape == (5, 5)


def test_rounds_of_pruning_look_for_the_ticket_and_the_control_comes_last() -> None:
    ticket = Retrain("1 parent", rewind="initial")
    control = Retrain("1 parent", rewind="initial", control="random_mask")
    assert Recipe(prune=Iterative(0.3), recover=control).steps == (Magnitude(0.15), ticket, Magnitude(0.3), control)
    assert control.describe() == "retrain 1 parent from initial random_mask"


def test_keys_added_later_leave_recipes_as_they_were_written() -> None:
    assert Retrain("5 steps").to_json() == {"name": "retrain", "version": 1, "budget": "5 steps", "lr": None}
    given = Retrain("1 parent", rewind="50 STEPS").to_json()
    assert given == {"name": "retrain", "version": 1, "budget": "1 parent", "lr": None, "rewind": "50 steps"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rewind": "early"}, r"recover\.rewind=early .* none, initial, or whole steps"),
        ({"rewind": "1 epoch"}, r"recover\.rewind=1 epoch"),
        ({"rewind": "0.5 steps"}, r"recover\.rewind=0\.5 steps"),
        (
            {"rewind": "initial", "budget": "5 steps"},
            r"recover\.budget=5 steps .* 1 parent with recover\.rewind=initial",
        ),
        ({"rewind": "initial", "lr": 0.1}, r"recover\.lr=0\.1 .* null with recover\.rewind=initial"),
        ({"control": "random_mask"}, r"recover\.control=random_mask .* none with recover\.rewind=none"),
        ({"rewind": "initial", "control": "dense"}, r"recover\.control=dense"),
        ({"rewind": "9 steps", "control": "reinitialized"}, r"recover\.control=reinitialized .* rewind=initial"),
    ],
)
def test_tickets_that_make_no_sense_are_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        Retrain(**{"budget": "1 parent", **given})


def test_weights_do_not_go_back_to_another_shape_or_without_a_parent(modern: Any) -> None:
    ticket = Retrain("1 parent", rewind="initial")
    with pytest.raises(UserError, match=r"^recover\.rewind=initial .* none where structure comes before recover"):
        Recipe(structure=Heads(0.5), recover=ticket)
    with pytest.raises(UserError, match=r"^recover\.rewind=initial .* nothing is known of the training"):
        compress(modern, Recipe(prune=Magnitude(0.5), recover=ticket), training=TrainingData(lambda _step: {}))
