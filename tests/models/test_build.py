"""Building from a seed, and loading what was saved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from trainlarge.data.tokenizer import PAD_ID
from trainlarge.errors import UserError
from trainlarge.machine.device import default_attention
from trainlarge.models.build import build_model, load_model
from trainlarge.models.families import FAMILIES
from trainlarge.models.family import Head
from trainlarge.models.shape import Shape

MODERN = Shape("modern", 32, 2, 2, 2.0, vocab_size=60, positions=16, dropout=0.1)
ROBERTA = replace(MODERN, name="roberta")
EVERY = [replace(MODERN, name=name) for name in FAMILIES]


def build(shape: Shape, seed: int = 0, init_std: float = 0.1) -> PreTrainedModel:
    return build_model(shape, init_std=init_std, seed=seed, attention="eager")


def same_weights(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("shape", EVERY)
def test_weights_depend_on_the_seed_and_not_on_the_global_state(shape: Shape) -> None:
    torch.manual_seed(1)
    first = build(shape)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), expected), "building must leave the global state alone"
    assert same_weights(first, build(shape))
    assert not same_weights(first, build(shape, seed=1))


@pytest.mark.parametrize("shape", EVERY)
def test_init_std_scales_every_matrix(shape: Shape) -> None:
    small, large = build(shape, init_std=0.01), build(shape, init_std=0.02)
    for (name, weight), other in zip(small.named_parameters(), large.parameters(), strict=True):
        if weight.dim() == 2:
            assert torch.allclose(2 * weight, other, rtol=1e-4), name
        else:
            assert torch.equal(weight, torch.full_like(weight, weight[0].item())), name


def test_every_layer_attends_to_the_whole_row_and_every_dropout_is_set() -> None:
    config = build(MODERN).config
    assert set(config.layer_types) == {"full_attention"}
    assert {rope["rope_theta"] for rope in config.rope_parameters.values()} == {10_000.0}
    assert config.embedding_dropout == config.attention_dropout == config.mlp_dropout == 0.1
    config = build(ROBERTA).config
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.1
    assert build(replace(MODERN, name="llama")).config.attention_dropout == 0.1


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", EVERY)
def test_a_saved_model_comes_back(shape: Shape, tied: bool, tmp_path: Path) -> None:
    model = build(replace(shape, tied=tied))
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, head=shape.family.pretraining_head)
    assert same_weights(model, loaded)
    assert not loaded.training and type(loaded) is type(model)
    trained = [{name for name, p in m.named_parameters() if p.requires_grad} for m in (model, loaded)]
    assert trained[0] == trained[1]


@pytest.mark.parametrize(("name", "head"), [(name, head) for name in FAMILIES for head in FAMILIES[name].heads])
def test_every_head_of_every_family_comes_back_from_a_folder(name: str, head: Head, tmp_path: Path) -> None:
    model = build_model(replace(MODERN, name=name, labels=3), init_std=0.1, seed=0, attention="eager", head=head)
    model.save_pretrained(tmp_path)
    loaded, tokens = load_model(tmp_path, attention="eager", head=head), torch.randint(4, 60, (2, 8))
    assert type(loaded).__name__ == FAMILIES[name].head(head).model_class and same_weights(model, loaded)
    with torch.no_grad():
        logits = loaded(tokens).logits
    assert logits.shape == ((2, 3) if head is Head.SEQUENCE_LABEL else (2, 8, 60))
    with torch.no_grad():
        assert torch.equal(logits, model.eval()(tokens).logits)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_token_sees_those_after_it_only_in_an_encoder(name: str) -> None:
    model, tokens = build(replace(MODERN, name=name)).eval(), torch.randint(4, 60, (2, 8))
    later = torch.cat([tokens[:, :6], (tokens[:, 6:] - 3) % 56 + 4], 1)
    with torch.no_grad():
        before, after = (model(ids).logits[:, :6] for ids in (tokens, later))
    assert torch.allclose(before, after, atol=1e-6) == FAMILIES[name].is_causal


@pytest.mark.parametrize(
    ("name", "asked", "line"),
    [
        ("llama", Head.MASKED_LM, "predicts masked tokens: an encoder .*; llama has no such loss"),
        ("modern", Head.CAUSAL_LM, "predicts the next token: a decoder .*; modernbert has no such loss"),
        ("modern", Head.SEQUENCE_LABEL, "a sequence classification model with all its weights .missing: classifier"),
    ],
)
def test_a_folder_with_another_head_is_refused_in_one_line(name: str, asked: Head, line: str, tmp_path: Path) -> None:
    build(replace(MODERN, name=name)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"^checkpoint=.*{line}"):
        load_model(tmp_path, head=asked)


def test_a_folder_that_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^checkpoint=.*nowhere is not valid: must be a Hugging Face folder"):
        load_model(tmp_path / "nowhere", head=Head.MASKED_LM)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\x00" * 100),
        ("config.json", b"{"),
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": "t5"}'),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(file: str, content: bytes, tmp_path: Path) -> None:
    build(MODERN).save_pretrained(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=r"^checkpoint=") as refused:
        load_model(tmp_path, head=Head.MASKED_LM)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_without_its_weights_is_refused(tmp_path: Path) -> None:
    build(MODERN).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"^checkpoint="):
        load_model(tmp_path, head=Head.MASKED_LM)


def test_padding_has_the_tokenizers_id() -> None:
    assert build(MODERN).config.pad_token_id == build(ROBERTA).config.pad_token_id == PAD_ID


def test_attention_is_chosen_by_device() -> None:
    assert default_attention("cpu") == "eager"
    assert default_attention(torch.device("cuda:0")) == "sdpa"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"attn_implementation": "some/kernel"}, "attn_implementation some/kernel: must be eager or sdpa"),
        ({"_attn_implementation": "kernels-community/flash-attn2"}, "must be eager or sdpa"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000: must be at most 1024"),
        ({"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}, "checkpoint="),
        ({"hidden_size": "large"}, "checkpoint="),
    ],
    ids=str,
)
def test_a_folder_that_asks_for_code_kernels_or_anything_odd_is_one_line(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    build(MODERN).save_pretrained(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError) as caught:
        load_model(tmp_path, head=Head.MASKED_LM)
    assert said in str(caught.value) and "\n" not in str(caught.value) and not (tmp_path / "ran").exists()


def test_a_known_model_with_python_files_is_built_from_the_library_alone(tmp_path: Path) -> None:
    build(MODERN).save_pretrained(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    path = tmp_path / "config.json"
    mapping = {"AutoConfig": "evil.EvilConfig", "AutoModelForMaskedLM": "evil.Evil"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": mapping}))
    assert same_weights(load_model(tmp_path, head=Head.MASKED_LM), build(MODERN)) and not (tmp_path / "ran").exists()
