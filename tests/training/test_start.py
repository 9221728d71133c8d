"""Train cells that start from a checkpoint: of a train cell, or in a Hugging Face folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM

from labelled_tables import finetuning, table_of, word_tokenizer
from trainlarge.cli import main
from trainlarge.config.plain import from_plain, to_plain
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.models.build import build_model
from trainlarge.models.family import Head
from trainlarge.models.shape import shape_of
from trainlarge.sweep.causes import Causes
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.planned import PlannedCell
from trainlarge.sweep.stages import stage_named
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training.cells import STAGE
from trainlarge.training.context import TrainContext

Tiny = Callable[..., TrainConfig]
Compose = Callable[..., StageConfig]
Run = Callable[[str, Sequence[StageConfig]], list[CellFolder]]
MLM = {"modern": "mlm", "roberta": "mlm", "bert": "mlm", "llama": "causal_lm"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return table_of(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("arch", MLM)
def test_weights_are_those_of_the_checkpoint_and_a_new_head_that_of_the_seed(
    tiny: Tiny, compose: Compose, run_here: Run, study: Study, table: Path, arch: str
) -> None:
    [parent] = run_here("train", [tiny(f"arch={arch}", f"task={MLM[arch]}", "arch.dropout=0.1", "seed=3")])
    config = STAGE.resolve(compose("train", *finetuning(parent.id, table)))
    assert config.arch == parent.cell().as_train.arch and config.data.vocab_size == 300
    model = TrainContext(study, config).loop.module.model
    trained = load_file(parent.checkpoint / "model.safetensors")
    prefix = f"{model.base_model_prefix}."
    tensors = model.state_dict()
    # The pooler is a part of the head, wherever it stands.
    body = [name for name in tensors if name.startswith(prefix) and ".pooler." not in name]
    assert body and all(torch.equal(tensors[name], trained[name]) for name in body)
    assert {name for name in trained if name.startswith(prefix)} == {*body}, "all of the body is taken"
    shape, head = shape_of(config), Head.SEQUENCE_LABEL
    new = build_model(shape, init_std=config.arch.initial_std, seed=0, attention="eager", head=head).state_dict()
    own = [name for name in tensors if name not in body]
    assert own and all(torch.equal(tensors[name], trained.get(name, new[name])) for name in own)


def test_the_same_head_is_kept(
    tiny: Tiny, compose: Compose, run_here: Run, study: Study, table: Path, tmp_path: Path
) -> None:
    [parent] = run_here("train", [tiny()])
    [child] = run_here("train", [STAGE.resolve(compose("train", *finetuning(parent.id, table)))])
    trained = load_file(child.checkpoint / "model.safetensors")
    again = STAGE.resolve(compose("train", *finetuning(child.id, table)))
    model = TrainContext(study, again).loop.module.model.state_dict()
    assert all(torch.equal(model[name], tensor) for name, tensor in trained.items())
    three = table_of(tmp_path / "three.jsonl", ("bad", "good", "odd"))
    other = STAGE.resolve(compose("train", *finetuning(child.id, three, "task.labels=3")))
    model = TrainContext(study, other).loop.module.model.state_dict()
    assert model["classifier.weight"].shape == (3, 16) and torch.equal(
        model["head.dense.weight"], trained["head.dense.weight"]
    )
    # Pretraining that goes on has the whole model, and masks as before.
    further = STAGE.resolve(tiny(f"checkpoint={parent.id}"))
    context = TrainContext(study, further)
    weights = load_file(parent.checkpoint / "model.safetensors")
    assert all(torch.equal(context.loop.module.model.state_dict()[name], weights[name]) for name in weights)
    assert context.evaluation_set.fingerprint == parent.train_record().data.evaluation_fingerprint


@pytest.fixture
def chain(tiny_text: Path, table: Path, tmp_path: Path) -> str:
    """Sweep files: a model, finetuned at two rates for two lengths, and the best of these compressed."""
    common = {"tracking": "none", "impl.device": "cpu", "impl.precision": "fp32", "impl.threads": 1}
    rows = {"data": "text", "data.sequence_length": 16, "optim.batch": 256, "schedule.warmup_steps": 2}
    rows["task.evaluation_rows"] = 64
    pretraining = {"data.files": [[str(tiny_text)]], "data.vocab_size": 300, "arch.width": 16, "arch.depth": 1}
    labels = {"task": "classification", "task.selection_share": 0.2, "data.files": [[str(table)]], "data.fraction": 0.5}
    axes = {"checkpoint": "every", "optim.lr": [3e-3, 1e-2], "budget": ["1 epochs", "2 epochs"]}
    chosen = {"where": 'task.name == "classification"', "best_of": ["optim.lr", "budget"]}
    sweeps: dict[str, dict[str, Any]] = {
        "1_train": {"blocks": [{**rows, **pretraining, "budget": "20 steps"}]},
        "2_train_labels": {"blocks": [{**rows, **labels, **axes}]},
        "3_compress": {"blocks": [{"checkpoint": "every", "prune.sparsity": 0.5, "quantize.bits": [32, 4]}], **chosen},
    }
    folder = tmp_path / "chain"
    folder.mkdir()
    for name, sweep in sweeps.items():
        sweep["blocks"] = [{**common, **block} for block in sweep["blocks"]]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"study": "tiny", "sweep": sweep}))
    return str(folder)


def test_a_chain_is_planned_run_and_found_again(chain: str, study: Study, capfd: pytest.CaptureFixture[str]) -> None:
    def planned() -> dict[str, Any]:
        assert main(["plan", chain, "--json"]) == 0
        return cast(dict[str, Any], json.loads(capfd.readouterr().out))

    before = planned()
    assert [stage["cells"] for stage in before["stages"]] == [1, 4, 2] and not study.path.exists()
    assert main(["run", chain]) == 0
    capfd.readouterr()
    after = planned()
    assert (after["cells"], after["done"]) == (7, 7), "a rerun runs nothing"
    ids = [{cell["cell"] for job in stage["jobs"] for cell in job["cells"]} for stage in before["stages"]]
    trained = {folder.id: folder.cell().as_train for folder in study.folders("train")}
    assert ids[0] | ids[1] == trained.keys(), "ids do not depend on whether the parents are trained"
    assert len(before["stages"][1]["jobs"]) == 2, "budgets share a trunk"
    parents = {cell: config.checkpoint for cell, config in trained.items() if config.checkpoint}
    assert set(parents.values()) == ids[0] and set(parents) == ids[1]
    scores = {cell: study.folder("train", cell).train_record().selection or {} for cell in parents}
    best = {
        parent: min(
            (cell for cell in parents if parents[cell] == parent),
            key=lambda cell: (-scores[cell]["accuracy"], scores[cell]["loss"], cell),
        )
        for parent in ids[0]
    }
    compressed = [folder.compress_record() for folder in study.folders("compress")]
    assert sorted(record.parent for record in compressed) == sorted([*best.values()] * 2)
    for record in compressed:
        own = study.folder("train", record.parent).train_record()
        assert record.dense_loss == pytest.approx(own.scores["loss"], abs=1e-5)
        assert record.data.evaluation_fingerprint == own.data.evaluation_fingerprint


def test_a_finetuning_that_was_stopped_goes_on_to_the_same_bits(
    tiny: Tiny, compose: Compose, run_here: Run, study: Study, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fp32 = ("impl.precision=fp32", "impl.save_seconds=0", "data.fraction=0.5")
    [parent] = run_here("train", [tiny("impl.precision=fp32")])
    configs = [compose("train", *finetuning(parent.id, table, *fp32, f"budget={steps} steps")) for steps in (10, 15)]
    folders = run_here("train", configs)
    expected = [load_file(folder.checkpoint / "model.safetensors") for folder in folders]
    for folder in folders:
        shutil.rmtree(folder.path)
    shutil.rmtree(study.path / "trunks")
    check, steps = RunningJob.check, list[int]()

    def die(job: RunningJob) -> None:
        check(job)
        steps.append(1)
        if len(steps) == 9:
            raise InterruptedError

    monkeypatch.setattr(RunningJob, "check", die)
    with pytest.raises(InterruptedError):
        run_here("train", configs)
    monkeypatch.setattr(RunningJob, "check", check)
    again = run_here("train", configs)
    assert any(folder.train_record().resumed_at for folder in again)
    for folder, tensors in zip(again, expected, strict=True):
        weights = load_file(folder.checkpoint / "model.safetensors")
        assert all(torch.equal(weights[name], tensor) for name, tensor in tensors.items())
    assert (again[0].checkpoint / "tokenizer.json").read_bytes() == (parent.checkpoint / "tokenizer.json").read_bytes()
    pipeline = AutoModelForSequenceClassification.from_pretrained(again[0].checkpoint)
    assert pipeline.config.num_labels == 2


def test_a_folder_of_a_family_is_a_start(
    tiny: Tiny, compose: Compose, run_here: Run, study: Study, table: Path, tmp_path: Path
) -> None:
    [parent] = run_here("train", [tiny("arch=roberta", "arch.positions=20")])
    copy = tmp_path / "folder"
    shutil.copytree(parent.checkpoint, copy)
    [of_cell, of_folder] = [
        STAGE.resolve(compose("train", *finetuning(start, table))) for start in (parent.id, str(copy))
    ]
    assert of_folder.checkpoint == str(copy) and of_folder.checkpoint_digest
    assert replace(of_folder.arch, init_std=None) == replace(of_cell.arch, init_std=None)
    assert STAGE.resolve(of_folder) == of_folder and from_plain(TrainConfig, to_plain(of_folder)) == of_folder
    moved = copy.rename(tmp_path / "elsewhere")
    elsewhere = STAGE.resolve(compose("train", *finetuning(moved, table)))
    assert Cell("train", elsewhere).id == Cell("train", of_folder).id != Cell("train", of_cell).id
    weights = [TrainContext(study, config).loop.module.model.state_dict() for config in (of_cell, elsewhere)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items() if "classifier" not in name)
    tensors = load_file(moved / "model.safetensors")
    tensors.pop(next(name for name in tensors if "attention" in name))
    save_file(tensors, moved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"^checkpoint=.*elsewhere is not valid: .* of digest"):
        TrainContext(study, elsewhere)
    damaged = STAGE.resolve(compose("train", *finetuning(moved, table)))
    with pytest.raises(UserError, match=r"^checkpoint=.* is not valid: .*\(missing: .*attention.*\)$"):
        TrainContext(study, damaged)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("arch.width=64", r"^arch\.width=64 is not valid: must be 16, that of the checkpoint:"),
        ("arch=llama", r"^arch\.name=llama is not valid: must be modern, that of the checkpoint:"),
        ("data.vocab_size=500", r"^data\.vocab_size=500 is not valid: must be 300, that of the checkpoint:"),
        ("data.sequence_length=32", r"^data\.sequence_length=32 is not valid: must be at most 16, the arch\.positions"),
        ("task.labels=3", r"^task\.labels=3 is not valid: must be 2, "),
        ("checkpoint=0123456789ab", r"^checkpoint=0123456789ab is not valid: must be the id of a finished train cell"),
        ("checkpoint=./nothing", r"^checkpoint=\S*/nothing is not valid: must be a Hugging Face folder with "),
    ],
)
def test_what_does_not_fit_a_checkpoint_is_refused_in_one_line(
    tiny: Tiny, compose: Compose, run_here: Run, study: Study, table: Path, override: str, message: str
) -> None:
    [parent] = run_here("train", [tiny("budget=2 steps")])
    with pytest.raises(UserError, match=message) as error:
        looked_at(study, compose("train", *finetuning(parent.id, table, override)))
    assert "\n" not in str(error.value)


def bert_folder(folder: Path, words: Sequence[str]) -> Path:
    """A BERT with a tokenizer of whole words, as it may come from anywhere."""
    word_tokenizer(folder, words)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=300, max_position_embeddings=24, pad_token_id=2, **sizes)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def test_a_model_with_a_tokenizer_of_its_own(
    compose: Compose, run_here: Run, study: Study, table: Path, tmp_path: Path
) -> None:
    words = ["the", "a", "model", "was", "small", "large", "good", "bad"]
    start = bert_folder(tmp_path / "bert", words)
    overrides = finetuning(start, table, "budget=30 steps")
    [child] = run_here("train", [compose("train", *overrides)])
    config, record = child.cell().as_train, child.train_record()
    assert (config.arch.name, config.arch.width, config.arch.positions, config.data.vocab_size) == ("bert", 16, 24, 300)
    assert record.scores["accuracy"] == 1.0, "the label is one of the words"
    assert record.parameters == AutoModelForSequenceClassification.from_pretrained(child.checkpoint).num_parameters()
    assert (child.checkpoint / "tokenizer.json").read_bytes() == (start / "tokenizer.json").read_bytes()
    recipe = ("prune.sparsity=0.5", "quantize.bits=4", "study=tiny", "tracking=none")
    [compressed] = run_here("compress", [compose("compress", f"checkpoint={child.id}", *recipe)])
    assert compressed.compress_record().dense_loss == pytest.approx(record.scores["loss"], abs=1e-5)
    [again] = run_here("train", [compose("train", *finetuning(child.id, table, "budget=2 steps"))])
    assert again.train_record().scores["accuracy"] == 1.0, "a start from what started from the folder"
    large = bert_folder(tmp_path / "large", [f"word{number}" for number in range(400)])
    with pytest.raises(UserError, match=r"^checkpoint=.*tokenizer has at most 300 entries, .* and not 405$"):
        looked_at(study, compose("train", *finetuning(large, table)))
    other = bert_folder(tmp_path / "other", [f"word{number}" for number in range(200)])
    with pytest.raises(
        UserError, match=r"^checkpoint=.*100% of the tokens are unknown is not valid: must be one whose"
    ):
        looked_at(study, compose("train", *finetuning(other, table)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "electra"}, r"of an architecture that is a family here \(bert, llama, .*unlike electra$"),
        ({"type_vocab_size": 3}, r"with type_vocab_size=2, as arch\.name=bert counts it, not 3$"),
        ({"hidden_size": None}, r"whose config\.json says hidden_size, a whole number of at least 1, and not null$"),
    ],
    ids=str,
)
def test_pretraining_does_not_go_on_from_a_folder_whose_model_is_none_of_a_family(
    compose: Compose, table: Path, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    folder = bert_folder(tmp_path / "bert", ["the", "a", "model", "was", "small", "large", "good", "bad"])
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, **changed}))
    with pytest.raises(UserError, match=rf"^checkpoint=.*{message}") as error:
        STAGE.resolve(compose("train", *finetuning(folder, table, "task=mlm")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("override", ["arch.width=128", "arch.width=16,128", "data.vocab_size=4096"])
def test_a_default_that_is_given_and_is_not_that_of_the_checkpoint_is_refused(
    tiny: Tiny, run_here: Run, study: Study, table: Path, capfd: pytest.CaptureFixture[str], override: str
) -> None:
    [parent] = run_here("train", [tiny("budget=2 steps")])
    capfd.readouterr()
    command = [*finetuning(parent.id, table, "impl.device=cpu"), override]
    for verb in ["plan", "train"], ["train", "-m"], *([["train"]] if "," not in override else []):
        assert main([*verb, *command]) == 2
        assert ", that of the checkpoint: its shape is taken over" in capfd.readouterr().err
    assert main(["plan", "train", *command[:-1], "arch.width=16"]) == 0


def test_lists_and_pages_name_the_checkpoint(
    tiny: Tiny, compose: Compose, run_here: Run, study: Study, table: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    [parent] = run_here("train", [tiny("budget=2 steps")])
    [child] = run_here("train", [compose("train", *finetuning(parent.id, table, "budget=2 steps"))])
    capfd.readouterr()
    assert main(["ls", "tiny"]) == 0
    assert f"2 steps, classification from {parent.id}" in capfd.readouterr().out
    assert main(["show", child.id, "--study", "tiny"]) == 0
    shown = capfd.readouterr().out
    assert f"checkpoint: train cell {parent.id}" in shown and f"checkpoint={parent.id}" in shown.replace('"', "")


def looked_at(study: Study, config: StageConfig) -> None:
    cells, causes = make_cells("train", [config]), Causes(1)
    stage_named("train").look(study, cells, causes, {})
    causes.raise_any()


def test_a_checkpoint_that_is_gone_or_diverged_is_refused(
    tiny: Tiny, compose: Compose, run_here: Run, study: Study, table: Path
) -> None:
    [parent] = run_here("train", [tiny("budget=2 steps")])
    config = compose("train", *finetuning(parent.id, table))
    parent.write_record_data({**parent.record_data(), "diverged": True})
    with pytest.raises(UserError, match=rf"^checkpoint={parent.id} is not valid: must be a train cell that did not d"):
        looked_at(study, config)
    shutil.rmtree(parent.checkpoint)
    with pytest.raises(UserError, match=rf"^checkpoint={parent.id} is not valid: .*weights are still there"):
        looked_at(study, config)


@pytest.mark.long
@pytest.mark.parametrize("rule", ["mup", "constant"])
def test_two_processes_start_from_the_same_weights(
    tiny: Tiny, compose: Compose, run_here: Run, study: Study, table: Path, rule: str
) -> None:
    common = ("impl.precision=fp32", "impl.threads=1", "optim.eps=1e-3")
    [parent] = run_here("train", [tiny("optim.lr_rule=mup", "optim.base_width=8", *common)])
    base = ("optim.base_width=8",) if rule == "mup" else ()
    scores = []
    for devices in (1, 2):
        more = (*common, f"optim.lr_rule={rule}", *base, f"impl.devices={devices}")
        [child] = run_here("train", [compose("train", *finetuning(parent.id, table, *more))])
        record = child.train_record()
        scores.append([record.scores["loss"], record.train_set_loss])
        child.clear_result()
        shutil.rmtree(study.path / "trunks")
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_data_is_looked_at_while_the_checkpoint_is_still_to_be_trained(
    tiny: Tiny, compose: Compose, study: Study, table: Path
) -> None:
    [parent] = make_cells("train", [tiny()])
    planned = {parent.id: PlannedCell(parent.as_train, 40)}

    def look(*more: str) -> None:
        causes = Causes(1)
        cells = make_cells("train", [compose("train", *finetuning(parent.id, table, *more))], planned)
        stage_named("train").look(study, cells, causes, planned)
        causes.raise_any()

    look("task.selection_share=0.1")
    for override, message in (
        ("task.labels=3", r"^task\.labels=3 is not valid: must be 2, the different labels in column label: bad, good"),
        ("task.label_column=kind", r"^task\.label_column=kind is not valid: "),
        ("data.fraction=0.01", r"^data\.fraction=0\.01 is not valid: must be at least 0\.\d+: a batch has 16 rows"),
    ):
        with pytest.raises(UserError, match=message):
            look(override)
    assert not study.path.exists()
