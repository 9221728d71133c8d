"""Methods that prune while the model trains, in a study: each result is as if alone, and whatever was interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from trainlarge.compression import load_packed_weights
from trainlarge.launch.job import RunningJob
from trainlarge.results.frames import load_study
from trainlarge.results.recipes import recipe_family
from trainlarge.sweep.store import CellFolder, Study

Run = Callable[..., list[CellFolder]]
Compose = Callable[..., dict[str, Any]]
TRAINING = (
    *("impl.threads=1", "impl.precision=fp32", "impl.save_seconds=0"),
    *("recover=retrain", "recover.budget=12 steps", "recover.lr=0.003"),
)
GRADUAL = (*TRAINING, "prune=gradual", "prune.every=2")
SOFT = (*TRAINING, "prune=soft_movement", "prune.threshold=0.1", "prune.scores_lr=0.5", "prune.warmup=0.1")
RECIPES = {
    "gradual": (*GRADUAL, "prune.sparsity=0.6"),
    "gradual to a higher sparsity, at 4 bits": (*GRADUAL, "prune.sparsity=0.8", "quantize.bits=4"),
    "movement": (*TRAINING, "prune=movement", "prune.sparsity=0.6", "prune.scope=tensor"),
    "soft movement": (*SOFT, "prune.regularization=300"),
    "soft movement, aware": (*SOFT, "prune.threshold=0.3", "quantize.bits=4", "recover.quantize_aware=true"),
    "adapt": (*TRAINING, "prune=adapt", "prune.sparsity=0.3"),
    "gradual, aware": (*GRADUAL, "prune.sparsity=0.6", "quantize.bits=3", "recover.quantize_aware=0.5"),
}
STOPPED_AFTER = 7
"""Steps of a training that is stopped: sparsity is rising, and half of the steps are aware of quantization."""


class Stopped(Exception):
    """Stands for a process that dies."""


@pytest.fixture
def configs(compose: Compose, tiny: Callable[..., dict[str, Any]], run_here: Run) -> dict[str, dict[str, Any]]:
    """A compress configuration of one trained checkpoint by each recipe."""
    [parent] = run_here("train", [tiny("impl.precision=fp32", "budget=40 steps")])
    common = ("study=tiny", f"checkpoint={parent.id}", "tracking=none", "impl.device=cpu")
    return {name: compose("compress", *common, *recipe) for name, recipe in RECIPES.items()}


def result(folder: CellFolder) -> tuple[bytes, float, int, list[dict[str, Any]]]:
    """What must not depend on how a cell was made."""
    record = folder.record_data()
    rows = [{name: value for name, value in row.items() if name != "train_seconds"} for row in folder.metrics()]
    return folder.packed.read_bytes(), record["loss"], record["recover_flops"], rows


def matrices(folder: CellFolder) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in load_packed_weights(folder.packed).items() if tensor.ndim == 2}


def zeros(folder: CellFolder) -> tuple[int, int]:
    """Weights of all matrices that are zero, and all of them."""
    tensors = matrices(folder).values()
    return sum(int((tensor == 0).sum()) for tensor in tensors), sum(tensor.numel() for tensor in tensors)


def test_each_recipe_is_as_if_alone_and_goes_on_to_the_same_bits(
    configs: dict[str, dict[str, Any]], run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = dict(zip(configs, run_here("compress", list(configs.values())), strict=True))
    together = {name: result(folder) for name, folder in folders.items()}
    count, total = zeros(folders["gradual"])
    assert count == round(0.6 * total)
    record, (count, total) = folders["soft movement"].record_data(), zeros(folders["soft movement"])
    assert record["sparsity"] == record["pruned_share"] == pytest.approx(count / total)
    assert 0.05 < record["sparsity"] < 0.95
    rows = load_study(study).compression.to_dict("records")
    families = {recipe_family(row) for row in rows}
    assert {"prune 60 % gradual, retrain", "prune soft_movement, retrain"} < families
    for name, config in configs.items():
        shutil.rmtree(study.path / "compress")
        shutil.rmtree(study.path / "trunks")
        with monkeypatch.context() as patched:
            patched.setattr(RunningJob, "check", _dying(after=STOPPED_AFTER))
            with pytest.raises(Stopped):
                run_here("compress", [config])
        saved = max(path.name for path in (study.path / "trunks").glob("*/recover-*"))
        assert saved == f"recover-{STOPPED_AFTER:09d}"
        [folder] = run_here("compress", [config])
        assert result(folder) == together[name], name


def _dying(after: int) -> Callable[[RunningJob], None]:
    check, checked = RunningJob.check, []

    def die(job: RunningJob) -> None:
        check(job)
        checked.append(1)
        if len(checked) == after:
            raise Stopped

    return die
