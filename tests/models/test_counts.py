"""Parameter counts by formula against the library's models and the paper's table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainlarge.config.arch import ArchConfig
from trainlarge.errors import UserError
from trainlarge.models.build import build_model
from trainlarge.models.counts import parameter_counts
from trainlarge.models.families import FAMILIES
from trainlarge.models.family import Head
from trainlarge.models.flops import forward_flops
from trainlarge.models.shape import Shape

shapes = st.builds(
    lambda head_width, heads, **rest: Shape(width=2 * head_width * heads, heads=heads, **rest),
    name=st.sampled_from(list(FAMILIES)),
    head_width=st.integers(1, 4),
    heads=st.integers(1, 3),
    depth=st.integers(1, 3),
    ffn_ratio=st.sampled_from([0.5, 1, 2.0, 4]),
    vocab_size=st.integers(3, 50),
    positions=st.integers(3, 40),
    tied=st.booleans(),
    labels=st.integers(1, 4),
)


def counted(shape: Shape, head: Head | None = None) -> tuple[int, int]:
    """Parameters of the built model in its tables (input and output over the vocabulary) and elsewhere."""
    with torch.device("meta"):
        model = build_model(shape, init_std=0.02, seed=0, attention="eager", head=head)
    tables = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    output: Any = model.get_output_embeddings()
    if output is not None:
        tables[id(output.weight)] = output.weight
    embedding = sum(table.numel() for table in tables.values())
    return embedding, sum(p.numel() for p in model.parameters()) - embedding


@settings(max_examples=40, deadline=None)
@given(shapes, st.data())
def test_formula_equals_the_built_model(shape: Shape, data: st.DataObject) -> None:
    head = data.draw(st.sampled_from(list(shape.family.heads)))
    counts = parameter_counts(shape, head)
    assert (counts.embedding, counts.non_embedding) == counted(shape, head)


@pytest.mark.parametrize(
    ("name", "head", "line"),
    [
        ("modern", Head.CAUSAL_LM, "arch.name=modern is not valid: must be a family with the head causal_lm; this one "
                                   "has masked_lm and sequence_label"),
        ("llama", Head.MASKED_LM, "arch.name=llama is not valid: must be a family with the head masked_lm"),
    ],
)  # fmt: skip
def test_a_head_that_a_family_lacks_is_refused(name: str, head: Head, line: str) -> None:
    shape = Shape(name, 8, 1, 1, 2.0, vocab_size=10, positions=10)
    for refuse in (
        lambda: parameter_counts(shape, head),
        lambda: forward_flops(shape, 8, 1, head),
        lambda: build_model(shape, init_std=0.02, seed=0, attention="eager", head=head),
    ):
        with pytest.raises(UserError) as refused:
            refuse()
        assert str(refused.value).startswith(line)


def test_roberta_equals_the_papers_table(reference: Path) -> None:
    with (reference / "golden_param_counts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    for row in rows:
        shape = golden_shape(row)
        counts = parameter_counts(shape)
        parts = ("encoder", "token_embedding", "position_embedding", "final_norm", "head", "untied_output")
        golden = ("encoder", "embedding", "position", "final_norm", "mlm_head", "untied_output")
        assert [getattr(counts, part) for part in parts] == [int(row[f"{name}_params"]) for name in golden]
        beyond = counts.token_type_embedding + counts.embedding_norm + counts.unused_bias
        assert counts.total - beyond == int(row["total_params"])
        assert beyond == 3 * shape.width + (0 if shape.tied else shape.vocab_size)


def test_papers_models_have_the_counted_parameters_in_the_library(reference: Path) -> None:
    with (reference / "golden_param_counts.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["depth"]) == 3]
    for row in rows:
        counts = parameter_counts(golden_shape(row))
        assert (counts.embedding, counts.non_embedding) == counted(golden_shape(row))


def golden_shape(row: dict[str, str]) -> Shape:
    arch = {"name": "roberta", "ffn_ratio": 4.0, "heads": None, "tied": row["tied"] == "true"}
    sizes = {key: int(row[key]) for key in ("width", "depth", "positions")}
    return Shape.from_config(ArchConfig(**arch, **sizes), int(row["vocab"]))
