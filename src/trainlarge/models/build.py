"""Models as plain Hugging Face models: built from a shape and a seed, or loaded from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from trainlarge.errors import UserError
from trainlarge.models.families import MODEL_CLASSES
from trainlarge.models.family import Head
from trainlarge.models.foreign import without_code
from trainlarge.models.model_folder import FLOAT_DTYPES, stored_weights
from trainlarge.models.shape import Shape
from trainlarge.sweep.files import exact_json, read_bytes


def build_model(
    shape: Shape,
    *,
    init_std: float,
    seed: int,
    attention: str,
    head: Head | None = None,
    config: PretrainedConfig | None = None,
) -> PreTrainedModel:
    """A new model whose weights are a function of the shape, the head, ``init_std`` and ``seed`` alone.

    The library's own scheme for the family draws the weights, with ``init_std`` in place of its 0.02.

    Args:
        shape: the architecture.
        init_std: standard deviation of the initial matrices and embeddings.
        seed: of the initial weights; the global random state is neither read nor changed.
        attention: the library's implementation, see :func:`trainlarge.machine.device.default_attention`.
        head: what the model predicts; None: what its family is pretrained with.
        config: that of a checkpoint of the same shape; None: the family's own.

    Returns:
        The model in fp32 on the CPU, in training mode.

    Raises:
        UserError: on ``arch.name``, when the family has no such head.
    """
    family, kind = shape.family, head or shape.family.pretraining_head
    config = config or family.config(shape, kind)
    name = family.head(kind).model_class
    model_class = library_class(config, kind) if name is None else getattr(transformers, name)
    config.initializer_range = init_std
    config._attn_implementation = attention
    if kind is Head.SEQUENCE_LABEL:
        config.num_labels = shape.labels
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: PreTrainedModel = model_class(config)
    _freeze_unused_bias(model)
    model.train()
    return model


class _Loader(NamedTuple):
    """How a head is loaded with any architecture that has it."""

    auto_class: str
    """The library's class that finds the architecture's own."""
    mapping: str
    """The library's table of the architectures with that head."""
    kind: str
    """What such a model is called."""
    allowed: str
    """What such a model does, and which there are."""


_LOADERS = {
    Head.MASKED_LM: _Loader(
        "AutoModelForMaskedLM",
        "MODEL_FOR_MASKED_LM_MAPPING",
        "masked language model",
        "predicts masked tokens: an encoder (BERT, RoBERTa, ModernBERT, ...) or an encoder-decoder such as BART",
    ),
    Head.CAUSAL_LM: _Loader(
        "AutoModelForCausalLM",
        "MODEL_FOR_CAUSAL_LM_MAPPING",
        "causal language model",
        "predicts the next token: a decoder (Llama, GPT-2, ...)",
    ),
    Head.SEQUENCE_LABEL: _Loader(
        "AutoModelForSequenceClassification",
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
        "sequence classification model",
        "labels rows (BERT, RoBERTa, ModernBERT, Llama, ...)",
    ),
}


def library_class(config: PretrainedConfig, head: Head) -> type[PreTrainedModel]:
    """The library's class of an architecture with a head.

    Raises:
        UserError: on ``checkpoint``, when it has no such head.
    """
    loader = _LOADERS[head]
    classes = getattr(transformers, loader.mapping)
    if type(config) not in classes:
        allowed = f"a model that {loader.allowed}; {config.model_type} has no such head"
        raise UserError("checkpoint", config.model_type, allowed)
    model_class: type[PreTrainedModel] = classes[type(config)]
    return model_class


_FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16}
"""Data types of safetensors that are kept in a packed file; others are held and evaluated in fp32."""


def own_dtypes(folder: str | Path, model: nn.Module) -> dict[str, torch.dtype]:
    """Name of a parameter -> its data type in a Hugging Face folder, of those that are not in fp32 there.

    Args:
        folder: with weights in safetensors.
        model: what ``load_model`` made of it. Where it names a parameter otherwise than the files do, and these hold
            several types, it stays in fp32, which rounds nothing.

    Raises:
        UserError: as ``stored_weights`` does.
    """
    stored = {name: weight.dtype for name, weight in stored_weights(Path(folder)).items()}
    found = {dtype for dtype in stored.values() if dtype in FLOAT_DTYPES}
    common = found.pop() if len(found) == 1 else ""
    names = model.state_dict(keep_vars=True).items()
    dtypes = {name: _FLOATS.get(stored.get(name, common)) for name, entry in names if isinstance(entry, nn.Parameter)}
    return {name: dtype for name, dtype in dtypes.items() if dtype is not None}


def load_model(folder: str | Path, *, attention: str | None = None, head: Head) -> PreTrainedModel:
    """The model of a Hugging Face folder, in fp32 and evaluation mode; never looks on the network.

    Args:
        folder: with ``config.json`` and weights in safetensors, of any architecture of the library with that head.
        attention: the library's implementation; None: its choice.
        head: what the model predicts.

    Raises:
        UserError: on ``checkpoint``, when the folder is missing, is no such model or is damaged.
    """
    path, loader = Path(folder), _LOADERS[head]
    with _named(path, loader):
        _config_with_head(path, loader)
        model, report = _loaded(path, loader, attn_implementation=attention)
    if report.missing:
        names = ", ".join(sorted(report.missing)[:3])
        raise UserError("checkpoint", folder, f"a {loader.kind} with all its weights (missing: {names})")
    _freeze_unused_bias(model)
    model.train(False)
    return model


@dataclass(frozen=True)
class LoadReport:
    """How the tensors of a folder fit a model, by their names."""

    missing: frozenset[str]
    """Those of the model that the folder lacks."""
    unexpected: frozenset[str]
    """Those of the folder that the model has no place for."""
    mismatched: frozenset[str]
    """Those that have another shape."""


def load_for_head(folder: Path, head: Head, labels: int) -> tuple[PreTrainedModel, LoadReport]:
    """The model of a Hugging Face folder with a head that may be another one, in fp32.

    Args:
        folder: with ``config.json`` and weights in safetensors.
        head: what the model is to predict.
        labels: classes of a head that labels rows.

    Returns:
        The model, whose head has any weights where the folder has no such head, and which those are.

    Raises:
        UserError: on ``checkpoint``, as ``load_model``.
    """
    loader = _LOADERS[head]
    more = {"num_labels": labels} if head is Head.SEQUENCE_LABEL else {}
    # The library draws what is missing.
    with _named(folder, loader), _without_report(), torch.random.fork_rng(devices=[]):
        return _loaded(folder, loader, ignore_mismatched_sizes=True, **more)


def checked_config(folder: Path, head: Head) -> PretrainedConfig:
    """The configuration of a Hugging Face folder.

    Raises:
        UserError: on ``checkpoint``, when its architecture has no such head, or it asks for code from elsewhere.
    """
    loader = _LOADERS[head]
    with _named(folder, loader):
        return _config_with_head(folder, loader)


@contextmanager
def _named(folder: Path, loader: _Loader) -> Iterator[None]:
    """Errors inside as those of a checkpoint: crafted files make each library raise its own."""
    if not (folder / "config.json").is_file():
        raise UserError("checkpoint", folder, "a Hugging Face folder with config.json and model.safetensors")
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = str(error).partition("\n")[0][:200]
        raise UserError("checkpoint", folder, f"an undamaged Hugging Face {loader.kind} ({cause})") from error


@contextmanager
def _without_report() -> Iterator[None]:
    """The library's own table of tensors that are missing is not printed: the caller knows which may be."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(transformers.logging.ERROR)
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def _loaded(folder: Path, loader: _Loader, **options: object) -> tuple[PreTrainedModel, LoadReport]:
    model, report = getattr(transformers, loader.auto_class).from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
        **options,
    )
    # Of a tensor of another shape, the library gives the name and both shapes.
    mismatched = {entry if isinstance(entry, str) else entry[0] for entry in report["mismatched_keys"]}
    missing, unexpected = (frozenset(report[f"{what}_keys"]) for what in ("missing", "unexpected"))
    return model, LoadReport(missing, unexpected, frozenset(mismatched))


def _config_with_head(folder: Path, loader: _Loader) -> PretrainedConfig:
    """The configuration of a folder; refuses an architecture without the head, and one that asks for code or kernels.

    The first (T5 predicts no masked tokens) raises UserError, which names what is supported, the second ValueError.
    """
    written = exact_json(read_bytes(folder / "config.json"))
    if not isinstance(written, dict):
        raise ValueError("config.json holds no mapping from keys to values")
    without_code(written)
    config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if type(config) not in getattr(transformers, loader.mapping):
        allowed = (
            f"a model that {loader.allowed}; {config.model_type} has no such loss, but trainlarge.compression.compress "
            "takes its model"
        )
        raise UserError("checkpoint", folder, allowed)
    return config


def _freeze_unused_bias(model: PreTrainedModel) -> None:
    """Freeze a bias that the forward pass never reads: data-parallel training waits for every trained parameter."""
    known = MODEL_CLASSES.get(type(model).__name__)
    if known is None or known[1].unused_bias is None:
        return
    bias = model.get_parameter(known[1].unused_bias)
    if bias is not model.get_submodule(known[1].output).bias:
        bias.requires_grad_(False)
