"""Models as plain Hugging Face models: built from a shape and a seed, or loaded from a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PretrainedConfig,
    PreTrainedModel,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForMaskedLM,
)

from trainlarge.errors import UserError
from trainlarge.models.families import PAD_ID
from trainlarge.models.foreign import without_code
from trainlarge.models.shape import Shape

ROTARY_BASE = 10_000.0
"""Base of the rotary frequencies in every layer (Su et al. 2021); the library's 160 000 is for rows of 8 192 tokens."""


def build_model(shape: Shape, *, init_std: float, seed: int, attention: str) -> PreTrainedModel:
    """A new model whose weights are a function of the shape, ``init_std`` and ``seed`` alone.

    The library's own scheme draws the weights, with ``init_std`` in place of its 0.02: ModernBERT cuts the normal
    distribution at two deviations and divides the output projections' by sqrt(2 depth) (as in Megatron-LM).

    Args:
        shape: the architecture.
        init_std: standard deviation of the initial matrices and embeddings.
        seed: of the initial weights; the global random state is neither read nor changed.
        attention: the library's implementation, see :func:`trainlarge.machine.device.default_attention`.

    Returns:
        The model in fp32 on the CPU, in training mode.
    """
    configuration, model_class = _ARCHITECTURES[shape.name]
    config = configuration(shape)
    config.initializer_range = init_std
    config._attn_implementation = attention
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = model_class(config)
    return _without_unused_gradients(model).train()


def load_model(folder: str | Path, *, attention: str | None = None) -> PreTrainedModel:
    """The masked language model of a Hugging Face folder, in fp32 and evaluation mode; never looks on the network.

    Raises:
        UserError: on ``checkpoint``, when the folder is missing, is no such model or is damaged.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise UserError("checkpoint", folder, "a Hugging Face folder with config.json and model.safetensors")
    options = {
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "dtype": torch.float32,
        "output_loading_info": True,
    }
    try:
        _check_is_masked(path)
        model, report = AutoModelForMaskedLM.from_pretrained(path, attn_implementation=attention, **options)
    except UserError:
        raise
    except Exception as error:  # crafted files make each library raise its own
        cause = str(error).partition("\n")[0][:200]
        raise UserError("checkpoint", folder, f"an undamaged Hugging Face masked language model ({cause})") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise UserError("checkpoint", folder, f"a masked language model with all its weights (missing: {missing})")
    return _without_unused_gradients(model).eval()


def _check_is_masked(folder: Path) -> None:
    """Raises UserError, which names what is supported, for a model that predicts no masked tokens (T5, GPT), and
    ValueError for one that asks for code or kernels from elsewhere."""
    without_code(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    kind = type(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    if kind not in MODEL_FOR_MASKED_LM_MAPPING:
        allowed = (
            "a model that predicts masked tokens: an encoder (BERT, RoBERTa, ModernBERT, ...) or an encoder-decoder "
            f"such as BART; {kind.model_type} has no such loss, but trainlarge.compression.compress takes its model"
        )
        raise UserError("checkpoint", folder, allowed)


def _modern_config(shape: Shape) -> PretrainedConfig:
    rotary = {"rope_type": "default", "rope_theta": ROTARY_BASE}
    return ModernBertConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.ffn_width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.positions,
        layer_types=["full_attention"] * shape.depth,
        rope_parameters={"full_attention": dict(rotary), "sliding_attention": dict(rotary)},
        embedding_dropout=shape.dropout,
        attention_dropout=shape.dropout,
        mlp_dropout=shape.dropout,
        tie_word_embeddings=shape.tied,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=None,
        cls_token_id=None,
        sep_token_id=None,
    )


def _roberta_config(shape: Shape) -> PretrainedConfig:
    return RobertaPreLayerNormConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.ffn_width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.positions,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        type_vocab_size=1,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=shape.tied,
    )


def _without_unused_gradients(model: PreTrainedModel) -> PreTrainedModel:
    """Freeze the bias that an untied RoBERTa never reads: data-parallel training waits for every trained parameter."""
    if isinstance(model, RobertaPreLayerNormForMaskedLM) and model.lm_head.bias is not model.lm_head.decoder.bias:
        model.lm_head.bias.requires_grad_(False)
    return model


_ARCHITECTURES: dict[str, tuple[Callable[[Shape], PretrainedConfig], type[PreTrainedModel]]] = {
    "modern": (_modern_config, ModernBertForMaskedLM),
    "roberta": (_roberta_config, RobertaPreLayerNormForMaskedLM),
}
