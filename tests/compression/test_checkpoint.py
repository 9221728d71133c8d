"""Any Hugging Face folder as a checkpoint: evaluated on a text with its own tokenizer; identity by content."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from trainlarge.cli import main
from trainlarge.commands.show import show_cell
from trainlarge.compression import Dynamic, Magnitude, Recipe, Uniform, compress, load_packed, save_packed
from trainlarge.compression.cells import STAGE
from trainlarge.compression.stage import run
from trainlarge.config.data import DataConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.data.model_tokenizer import model_tokenizer
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.models.build import load_model
from trainlarge.models.family import Head
from trainlarge.models.forward import FORWARDS
from trainlarge.models.model_folder import folder_digest
from trainlarge.results.frames import load_study
from trainlarge.results.report.page import write_report
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.plan import look_ahead, make_cells, make_plan
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tasks.task import make_task

Compose = Callable[..., dict[str, Any]]
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<cls>", "sep_token": "<sep>", "mask_token": "<m>"}


@pytest.fixture
def folder(tmp_path: Path, tiny_text: Path) -> Path:
    """A small BERT with a tokenizer of whole words, as somebody else made it: it cuts texts after four tokens."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train([str(tiny_text)], trainers.WordLevelTrainer(special_tokens=list(SPECIAL.values())))
    tokenizer.enable_truncation(4)
    path = tmp_path / "bert"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL).save_pretrained(path)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(0)
    size = tokenizer.get_vocab_size()
    BertForMaskedLM(BertConfig(vocab_size=size, max_position_embeddings=32, **shape)).save_pretrained(path)
    return path


@pytest.fixture
def text(tiny_text: Path) -> list[str]:
    """Overrides for the text and the evaluation."""
    return [
        "data=text",
        f"data.files=[{tiny_text}]",
        "data.sequence_length=16",
        "task.evaluation_rows=32",
        "study=tiny",
        "impl.device=cpu",
    ]


def test_a_folder_is_compressed_in_one_command(study: Study, folder: Path, text: list[str]) -> None:
    recipes = ["structure=heads", "structure.keep=0.5", "vocabulary=frequent", "vocabulary.size=20", "tracking=none"]
    assert main(["compress", f"checkpoint={folder}", *text, *recipes, "quantize.bits=8"]) == 0
    [cell] = study.folders("compress")
    record = cell.record_data()
    assert record["parent"] == cell.cell().as_compress.checkpoint_digest
    assert load_packed(cell.packed).num_parameters() == record["parameters"]
    assert record["unknown_share"] > 0
    assert main(["plan", "compress", f"checkpoint={folder}", *text]) == 0


@pytest.fixture
def bart(folder: Path) -> Path:
    """An encoder-decoder that fills masks, with the same tokenizer."""
    shape = dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 2)
    config = BartConfig(
        vocab_size=_emptied(folder), d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32,
        pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=3, **shape,
    )  # fmt: skip
    torch.manual_seed(0)
    BartForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_an_encoder_decoder_that_fills_masks(
    study: Study, bart: Path, text: list[str], compose: Compose, run_here: Callable[..., list[CellFolder]]
) -> None:
    common = [f"checkpoint={bart}", *text, "tracking=none"]
    recipes = [["quantize.bits=32"], ["prune.sparsity=0.5", "quantize.bits=4"], ["factorize=svd", "factorize.keep=0.5"],
               ["prune=wanda", "prune.sparsity=0.5"], ["quantize.bits=8", "activations=static"],
               ["vocabulary=frequent", "vocabulary.size=20"], ["structure=heads", "structure.keep=0.5"]]  # fmt: skip
    *cells, vocabulary, heads = run_here("compress", [compose("compress", *common, *recipe) for recipe in recipes])
    records = [cell.record_data() for cell in cells]
    assert records[0]["loss_increase"] == 0 and len({record["loss"] for record in records}) == len(records)
    for cell, record in zip(cells, records, strict=True):
        model = load_packed(cell.packed)
        assert type(model).__name__ == "BartForConditionalGeneration"
        assert model.num_parameters() == record["parameters"]
    start = "vocabulary.name=frequent=BartForConditionalGeneration is not valid: must be used for a Hugging Face model"
    assert vocabulary.status().error.startswith(start)
    start = (
        "structure.name=heads=BartForConditionalGeneration is not valid: must be used for a model with one list of BERT"
    )
    assert heads.status().error.startswith(start)


def test_an_encoder_decoder_without_masks(
    study: Study, folder: Path, text: list[str], compose: Compose, run_here: Callable[..., list[CellFolder]],
    tmp_path: Path,
) -> None:  # fmt: skip
    config = T5Config(vocab_size=_emptied(folder), d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    says = r"^checkpoint=.* is not valid: must be a model that predicts masked tokens: .*BART; t5 has no such loss"
    with pytest.raises(UserError, match=says):
        run_here("compress", [compose("compress", f"checkpoint={folder}", *text, "tracking=none")])
    # As a Python API it is compressed as any other.
    compressed = compress(model, Recipe(Magnitude(0.5), Uniform(4), activations=Dynamic()))
    save_packed(tmp_path / "packed", compressed)
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        expected = compressed.model()(input_ids=ids, decoder_input_ids=ids).logits
        assert torch.equal(load_packed(tmp_path / "packed")(input_ids=ids, decoder_input_ids=ids).logits, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_folder_in_half_precision_is_counted_and_packed_as_it_is(
    study: Study, folder: Path, text: list[str], compose: Compose, run_here: Callable[..., list[CellFolder]],
    dtype: torch.dtype, tmp_path: Path,
) -> None:  # fmt: skip
    model = BertForMaskedLM.from_pretrained(folder).to(dtype)
    model.save_pretrained(folder)
    common = [f"checkpoint={folder}", *text, "tracking=none"]
    recipes = [[], ["prune.sparsity=0.5", "quantize.bits=4"], ["structure=heads", "structure.keep=0.5"]]
    dense, rounded, cut = run_here("compress", [compose("compress", *common, *recipe) for recipe in recipes])
    record, half = dense.record_data(), 2 * model.num_parameters()
    padding = 2 * model.config.hidden_size
    assert record["dense_bytes"] == record["ideal_bytes"] + padding == half, "a row of zeros"
    assert record["bits"] == record["embedding_bits"] == 16 and record["packing"] == 2
    assert 0 < record["file_bytes"] - half < (folder / "config.json").stat().st_size + 6000
    assert record["loss"] == record["dense_loss"]
    for cell in (dense, rounded, cut):
        assert {tensor.dtype for tensor in load_packed(cell.packed).parameters()} == {dtype}
    assert rounded.record_data()["bits"] == 4
    assert main(["export", rounded.id, str(tmp_path / "exported"), "--study", "tiny"]) == 0
    exported = load_model(tmp_path / "exported", head=Head.MASKED_LM)
    packed = load_packed(rounded.packed)
    assert all(torch.equal(a, b.float()) for a, b in zip(exported.parameters(), packed.parameters(), strict=True))


def test_a_study_of_folders_alone_has_frames_report_and_mirror(
    study: Study, folder: Path, text: list[str], compose: Compose, run_here: Callable[..., list[CellFolder]],
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    others = [shutil.copytree(folder, tmp_path / name / "bert") for name in ("small", "large")]
    BertForMaskedLM.from_pretrained(folder).bfloat16().save_pretrained(others[0])
    run_here(
        "compress",
        [
            compose("compress", f"checkpoint={path}", *text, "tracking=none", f"quantize.bits={bits}")
            for path in others
            for bits in (32, 8)
        ],
    )
    frames = load_study(study.path)
    assert frames.cells.empty and set(frames.compression["checkpoint"]) == {"small/bert", "large/bert"}
    halves = frames.compression.groupby("checkpoint")["dense_bytes"].first()
    assert halves["large/bert"] == 2 * halves["small/bert"]
    assert set(frames.compression["task"]) == {"mlm"} and frames.compression["sequence_length"].eq(16).all()
    page = write_report(study).read_text()
    for name in ("small/bert", "large/bert"):
        assert f"<td>{name}</td>" in page and re.search(rf"{name}: (\d|each) of 2 recipes", page)
    assert "compress: 4 done" in page
    # Nothing is said of train cells, figures and facts that such a study does not have.
    for absent in ("no cells yet", "not known", "study.curves", "PNG and SVG", "What was not found"):
        assert absent not in page
    for written in (2, 0):
        assert main(["sync", study.name, "tracking=csv"]) == 0
        assert f"{written} runs written" in capsys.readouterr().out
    cell = frames.compression["cell"].iloc[0]
    assert main(["show", cell]) == 0
    assert "\n  checkpoint: Hugging Face folder /" in capsys.readouterr().out
    for verb in (["status", study.name], ["ls", study.name], ["clean", study.name], ["report", study.name]):
        assert main(verb) == 0
    assert main(["export", cell, str(tmp_path / "exported")]) == 0


def test_a_study_of_train_cells_and_a_folder(
    study: Study, folder: Path, text: list[str], compose: Compose, run_here: Callable[..., list[CellFolder]],
    tiny: Callable[..., TrainConfig],
) -> None:  # fmt: skip
    [parent] = run_here("train", [tiny()])
    common = [["study=tiny", "impl.device=cpu", f"checkpoint={parent.id}"], [f"checkpoint={folder}", *text]]
    run_here("compress", [compose("compress", *each, "tracking=none", "quantize.bits=8") for each in common])
    compression = load_study(study.path).compression
    assert sorted(compression["checkpoint"]) == ["", "bert"]
    assert compression.set_index("checkpoint")["series"].notna().to_dict() == {"": True, "bert": False}
    page = write_report(study).read_text()
    assert "<td>bert</td>" in page and "Loss against file size" in page


def test_a_folder_of_mixed_data_types_keeps_each(
    study: Study, folder: Path, text: list[str], compose: Compose, run_here: Callable[..., list[CellFolder]]
) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "word_embeddings" in name)
    save_file({**tensors, name: tensors[name].bfloat16()}, folder / "model.safetensors", {"format": "pt"})
    [cell] = run_here("compress", [compose("compress", f"checkpoint={folder}", *text, "tracking=none")])
    types = {key: entry.dtype for key, entry in load_packed(cell.packed).named_parameters()}
    assert {key for key, dtype in types.items() if dtype == torch.bfloat16} == {name}
    assert cell.record_data()["dense_bytes"] == sum(entry.nbytes for entry in load_packed(cell.packed).parameters())


def test_a_folder_in_eight_bit_floats_is_refused_in_one_line(
    study: Study, folder: Path, text: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(folder / "model.safetensors")
    tiny = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}
    save_file(tiny, folder / "model.safetensors", {"format": "pt"})
    for verb in (["plan", "compress"], ["compress"]):
        assert main([*verb, f"checkpoint={folder}", *text, "tracking=none"]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert "must be a folder of weights in F64, F32, F16, BF16, " in line and "F8_E4M3" in line


def _emptied(folder: Path) -> int:
    """Takes the model out of a folder and leaves the tokenizer; the entries of its vocabulary."""
    size: int = json.loads((folder / "config.json").read_text())["vocab_size"]
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    return size


def test_identity_is_content_and_not_place(folder: Path, text: list[str], study: Study, compose: Compose) -> None:
    moved = shutil.copytree(folder, folder.with_name("moved"))
    one, other = (
        Cell("compress", STAGE.resolve(compose("compress", f"checkpoint={path}", *text))) for path in (folder, moved)
    )
    assert one.id == other.id
    shorter = STAGE.resolve(compose("compress", f"checkpoint={folder}", *text, "data.sequence_length=8"))
    assert Cell("compress", shorter).id != one.id
    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert Cell("compress", STAGE.resolve(compose("compress", f"checkpoint={moved}", *text))).id != one.id


def test_each_text_of_a_sweep_evaluates_its_own_cells(
    folder: Path, text: list[str], study: Study, compose: Compose, run_here: Callable[..., list[CellFolder]],
    tmp_path: Path, tiny_text: Path,
) -> None:  # fmt: skip
    other = tmp_path / "other.txt"
    other.write_text("\n\n".join(reversed(tiny_text.read_text().split("\n\n")[:600])))
    common = [f"checkpoint={folder}", *text, "tracking=none"]
    overrides = [[], [f"data.files=[{other}]"], ["task.evaluation_rows=16"]]
    configs = [compose("compress", *common, *override) for override in overrides]
    recipes = [compose("compress", *common, f"quantize.bits={bits}") for bits in (8, 4)]
    assert [len(job.cell_ids) for job in look_ahead(study, "compress", make_cells("compress", recipes)).jobs] == [2]
    assert len(look_ahead(study, "compress", make_cells("compress", configs)).jobs) == len(configs)
    together = run_here("compress", configs)
    found = [cell.record_data() for cell in together]
    for cell in together:
        shutil.rmtree(cell.path)
    alone = [run_here("compress", [config])[0].record_data() for config in configs]
    facts = ("loss", "data", "dense_loss")
    assert [[record[fact] for fact in facts] for record in found] == [
        [record[key] for key in facts] for record in alone
    ]
    assert len({record["loss"] for record in found}) == len(configs)


def test_cells_of_a_folder_that_changed_between_two_commands_share_no_job(
    folder: Path, text: list[str], study: Study, compose: Compose
) -> None:
    before = make_cells("compress", [compose("compress", f"checkpoint={folder}", *text)])
    model = BertForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        model.cls.predictions.bias.add_(1.0)
    model.save_pretrained(folder)
    after = make_cells("compress", [compose("compress", f"checkpoint={folder}", *text, "quantize.bits=8")])
    assert len(look_ahead(study, "compress", [*before, *after]).jobs) == 2


def test_a_folder_that_changed_after_the_cell_was_frozen_is_refused(
    folder: Path, text: list[str], study: Study, compose: Compose
) -> None:
    config = compose("compress", f"checkpoint={folder}", *text, "tracking=none", "quantize.bits=8")
    [job] = make_plan(study, "compress", make_cells("compress", [config])).jobs
    [cell] = study.folders("compress")
    weights, before = folder / "model.safetensors", folder_digest(folder)
    written = weights.read_bytes()
    weights.write_bytes(written[:-1] + bytes([written[-1] ^ 1]))
    change = f"as it was when the cell was frozen, of digest {before} and not {folder_digest(folder)}"
    with pytest.raises(UserError, match=f"^checkpoint={folder} is not valid: must be the folder {change}$"):
        _run_job(study, job.cell_ids)
    status = cell.status()
    assert status.state is State.FAILED and change in (status.error or "") and not cell.record_path.exists()
    weights.write_bytes(written)
    _run_job(study, job.cell_ids)
    assert cell.is_done() and cell.record_data()["parent"] == before


def _run_job(study: Study, cell_ids: Sequence[str]) -> None:
    running = RunningJob.claim(study, "compress", cell_ids)
    with running.running():
        run(running)


def test_a_recipe_whose_model_computes_no_numbers_fails_alone(
    folder: Path, text: list[str], study: Study, compose: Compose, run_here: Callable[..., list[CellFolder]]
) -> None:
    model = BertForMaskedLM.from_pretrained(folder)
    attention = model.bert.encoder.layer[0].attention.self
    with torch.no_grad():
        # Every token asks with the same huge query, for keys of tiny weights. Rounding by one scale gives all of these
        # weights the size of the one large weight, which nobody asks for.
        attention.query.weight.zero_()
        attention.query.bias.zero_()
        attention.query.bias[1] = 3e37
        attention.key.weight.mul_(1e-37)
        attention.key.weight[0, 0] = 1e4
        attention.key.bias.zero_()
    model.save_pretrained(folder)
    common = [f"checkpoint={folder}", *text, "tracking=none"]
    recipes = [["quantize=binary", "quantize.granularity=tensor"], ["quantize.bits=32"], ["quantize.bits=8"]]
    broken, *fine = run_here("compress", [compose("compress", *common, *recipe) for recipe in recipes])
    says = "recipe=binary tensor is not valid: must be one whose model has a finite loss: this one's is nan"
    assert broken.status().error == says and not broken.packed.exists()
    assert [cell.record_data()["loss_increase"] != 0 for cell in fine] == [False, True]


def test_a_loss_beyond_every_perplexity_is_recorded(
    folder: Path, text: list[str], study: Study, compose: Compose, run_here: Callable[..., list[CellFolder]]
) -> None:
    model = BertForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        model.cls.predictions.bias[7] = 2000.0
    model.save_pretrained(folder)
    [cell] = run_here("compress", [compose("compress", f"checkpoint={folder}", *text, "tracking=none")])
    record = cell.record_data()
    assert record["loss"] > 1000 and record["perplexity"] is None
    assert "perplexity" not in show_cell(cell.id, study.name)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_is_missing_is_named(folder: Path, text: list[str], study: Study, compose: Compose, missing: str) -> None:
    (folder / missing).unlink()
    name = "safetensors" if missing.startswith("model") else missing
    with pytest.raises(UserError, match=rf"^checkpoint=.*{name} missing"):
        STAGE.resolve(compose("compress", f"checkpoint={folder}", *text))


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["data.sequence_length=33"], "data.sequence_length=33 is not valid: must be 1 to 32"),
        (["task.evaluation_rows=0"], "task.evaluation_rows=0"),
        (["data.files=[/nowhere/x.txt]"], "data.files=/nowhere/x.txt"),
        (["data=stdlib"], r"data.files=.* is not valid: must be \[\] unless data=text"),
    ],
)
def test_a_text_that_does_not_fit(
    folder: Path, text: list[str], study: Study, compose: Compose, overrides: list[str], key: str
) -> None:
    with pytest.raises(UserError, match=rf"^{key}"):
        STAGE.resolve(compose("compress", f"checkpoint={folder}", *text, *overrides))


def test_a_tokenizer_with_more_tokens_than_the_model(
    folder: Path, text: list[str], study: Study, compose: Compose, run_here: Callable[..., list[CellFolder]]
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    size = len(tokenizer)
    tokenizer.add_tokens(["brandnew"])
    tokenizer.save_pretrained(folder)
    config = compose("compress", f"checkpoint={folder}", *text, "tracking=none")
    allowed = f"a folder whose tokenizer has at most {size} entries, those of its model, and not {size + 1}"
    with pytest.raises(UserError, match=rf"^checkpoint={folder} is not valid: must be {allowed}$"):
        run_here("compress", [config])
    model = BertForMaskedLM.from_pretrained(folder)
    model.resize_token_embeddings(size + 1)
    model.save_pretrained(folder)
    [cell] = run_here("compress", [compose("compress", f"checkpoint={folder}", *text, "tracking=none")])
    assert cell.is_done()


def test_a_tokenizer_without_a_mask(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("mask_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    own = model_tokenizer(folder, 1000)
    assert own.mask_id is None
    with pytest.raises(UserError, match=rf"^checkpoint={folder} is not valid: .* whose tokenizer has a mask token"):
        make_task(MaskedLMConfig(), DataConfig(name="stdlib"), FORWARDS["library"]).prepare(folder, own)


def _id(folder: Path, text: list[str], compose: Compose) -> str:
    return Cell("compress", STAGE.resolve(compose("compress", f"checkpoint={folder}", *text))).id


def test_the_identity_covers_what_is_loaded_and_nothing_else(
    folder: Path, text: list[str], study: Study, compose: Compose
) -> None:
    before = _id(folder, text, compose)
    for name in ("README.md", "x.safetensors", "pytorch_model.bin", "training_args.bin"):
        (folder / name).write_bytes(b"something else")
    assert _id(folder, text, compose) == before
    for name, content in {"special_tokens_map.json": "{}", "added_tokens.json": "{}", "vocab.txt": "a"}.items():
        (folder / name).write_text(content)
        now = _id(folder, text, compose)
        assert now != before, name
        before = now
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace("<m>", "<sep>"))
    assert _id(folder, text, compose) != before


def test_the_digest_of_configuration_tokenizer_and_one_file_of_weights_is_pinned(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    assert folder_digest(tmp_path) == "05f4b59d1a4d362f"


def test_weights_that_would_not_be_loaded_are_no_weights(
    folder: Path, text: list[str], study: Study, compose: Compose
) -> None:
    model = BertForMaskedLM.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "x.safetensors")
    with pytest.raises(UserError, match=r"^checkpoint=.*\(model\.safetensors missing\)"):
        _id(folder, text, compose)
    with pytest.raises(UserError, match=r"^checkpoint=.*undamaged"):
        load_model(folder, head=Head.MASKED_LM)


def _sharded(folder: Path) -> dict[str, Any]:
    """The same weights in two files; the index that leads to them."""
    model = BertForMaskedLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="8KB")
    index: dict[str, Any] = json.loads((folder / "model.safetensors.index.json").read_text())
    return index


def test_the_identity_covers_the_shards_that_an_index_names(
    folder: Path, text: list[str], study: Study, compose: Compose
) -> None:
    index = _sharded(folder)
    shards = set(index["weight_map"].values())
    assert len(shards) > 1
    before = _id(folder, text, compose)
    first = folder / min(shards)
    (folder / "sub").mkdir()
    first.rename(folder / "sub" / "w.safetensors")
    moved = {name: "sub/w.safetensors" if file == first.name else file for name, file in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": moved}))
    inside = _id(folder, text, compose)
    assert inside != before and load_model(folder, head=Head.MASKED_LM)
    content = (folder / "sub" / "w.safetensors").read_bytes()
    (folder / "sub" / "w.safetensors").write_bytes(content[:-1] + b"x")
    assert _id(folder, text, compose) != inside


@pytest.mark.parametrize("place", ["../w.safetensors", "/tmp/w.safetensors", "sub/../../w.safetensors", "w.bin"])
def test_weights_outside_the_folder_are_refused(
    folder: Path, text: list[str], study: Study, compose: Compose, place: str
) -> None:
    index = _sharded(folder)
    elsewhere = dict.fromkeys(index["weight_map"], place)
    (folder / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": elsewhere}))
    with pytest.raises(UserError, match=r"^checkpoint=.*safetensors inside of it, and not in"):
        _id(folder, text, compose)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": place}))
    with pytest.raises(UserError, match=r"^checkpoint=.*safetensors inside of it, and not in"):
        _id(folder, text, compose)


def test_an_adapter_beside_the_weights_is_refused(
    folder: Path, text: list[str], study: Study, compose: Compose
) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"^checkpoint=.*no adapter_config\.json"):
        _id(folder, text, compose)
